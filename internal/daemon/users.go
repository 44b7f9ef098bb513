package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// checkUsers says why VMs cannot run as the uids and gids from base on: capacity of
// them, and one more for trials. A user namespace, such as a container's, may lack
// some; an account that has one would own a VM.
func checkUsers(base uint32, capacity int) error {
	first, last := uint64(base), uint64(base)+uint64(capacity)
	for _, file := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("begins a range that cannot be looked up: %w", err)
		}
		if !mapped(string(text), first, last) {
			return fmt.Errorf("begins a range, to %d, that this host does not have: see %s", last, file)
		}
	}
	for _, file := range []string{"/etc/passwd", "/etc/group"} {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("begins a range that cannot be looked up: %w", err)
		}
		if name := accountOf(string(text), first, last); name != "" {
			return fmt.Errorf("begins a range, to %d, of which %q in %s has one", last, name, file)
		}
	}
	return nil
}

// mapped reports whether a user namespace has all ids from first to last, by its
// map (user_namespaces(7)): lines of the first id inside, the one outside, how many.
func mapped(text string, first, last uint64) bool {
	for line := range strings.Lines(text) {
		var inside, outside, length uint64
		if _, err := fmt.Sscan(line, &inside, &outside, &length); err == nil && inside <= first && last < inside+length {
			return true
		}
	}
	return false
}

// accountOf returns the name of an account with an id from first to last, or "". The
// id is the third field of both files (passwd(5), group(5)).
func accountOf(text string, first, last uint64) string {
	for line := range strings.Lines(text) {
		fields := strings.Split(line, ":")
		if len(fields) < 3 {
			continue
		}
		if id, err := strconv.ParseUint(strings.TrimSpace(fields[2]), 10, 32); err == nil && first <= id && id <= last {
			return fields[0]
		}
	}
	return ""
}

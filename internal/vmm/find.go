package vmm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"zwrm/internal/model"
)

// Find returns the processes that Launch started in the folders of root, by the
// name of the folder. That is how a VMM is found whose start no row tells of, since zwrmd
// died between the two. Only root can look at all processes.
func Find(root string) (map[string]model.Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("find VMMs: %w", err)
	}
	// The kernel gives a process's folder without symbolic links.
	root, err = filepath.EvalSymlinks(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find VMMs: %w", err)
	}
	found := map[string]model.Process{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		dir, err := os.Readlink(filepath.Join("/proc", entry.Name(), "cwd"))
		if err != nil || filepath.Dir(dir) != root || !leads(pid) {
			continue
		}
		id, err := Identify(pid)
		if err != nil {
			continue // it has ended meanwhile
		}
		found[filepath.Base(dir)] = id
	}
	return found, nil
}

// leads reports whether the process leads a session, as those of Launch do and
// their children, or a shell that somebody has in the folder, do not.
func leads(pid int) bool {
	session, err := unix.Getsid(pid)
	return err == nil && session == pid
}

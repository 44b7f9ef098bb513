package vmm

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"zwrm/internal/model"
)

// Identify returns the identity of the process that has the pid now. A zombie
// still has one.
func Identify(pid int) (model.Process, error) {
	start, err := startTime(pid)
	if err != nil {
		return model.Process{}, err
	}
	boot, err := bootID()
	if err != nil {
		return model.Process{}, err
	}
	return model.Process{PID: pid, StartTime: start, BootID: boot}, nil
}

// bootID returns the random number that the kernel drew when it booted.
func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// startTime returns field 22 of /proc/PID/stat (proc_pid_stat(5)). The second
// field is the program's name in brackets, which may itself hold blanks and
// brackets; the last closing bracket ends it.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	const startTimeBehindName = 22 - 3
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) <= startTimeBehindName {
		return 0, fmt.Errorf("read start time of process %d: /proc/%d/stat has no field 22", pid, pid)
	}
	start, err := strconv.ParseUint(fields[startTimeBehindName], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	return start, nil
}

// ticks is how many of its ticks the kernel shows per second (USER_HZ), on every
// architecture of ours.
const ticks = 100

// Started returns when a process of this boot began.
func Started(p model.Process) (time.Time, error) {
	data, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return time.Time{}, fmt.Errorf("read uptime: %w", err)
	}
	word, _, _ := strings.Cut(string(data), " ")
	uptime, err := strconv.ParseFloat(word, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("read uptime: %w", err)
	}
	boot := time.Now().Add(-time.Duration(uptime * float64(time.Second)))
	return boot.Add(time.Duration(p.StartTime) * time.Second / ticks), nil
}

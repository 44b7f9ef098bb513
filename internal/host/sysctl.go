package host

import (
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
)

// Sysctl returns a kernel setting by its path below /proc/sys, as in
// "net/ipv4/ip_forward". The error wraps fs.ErrNotExist if the kernel has none of
// that name.
func (k *Kernel) Sysctl(name string) (string, error) {
	value, err := readSysctl(name)
	if err != nil {
		return "", fmt.Errorf("read sysctl %q: %w", name, err)
	}
	return value, nil
}

// SetSysctl changes a kernel setting and reads it back: some are accepted and
// then limited, or not there for this namespace to change.
func (k *Kernel) SetSysctl(name, value string) error {
	if err := k.writeSysctl(name, value); err != nil {
		return fmt.Errorf("set sysctl %q to %q: %w", name, value, err)
	}
	got, err := readSysctl(name)
	if err != nil {
		return fmt.Errorf("set sysctl %q to %q: read it back: %w", name, value, err)
	}
	if strings.Join(strings.Fields(value), " ") != strings.Join(strings.Fields(got), " ") {
		return fmt.Errorf("set sysctl %q to %q: it stays %q", name, value, got)
	}
	return nil
}

func (k *Kernel) writeSysctl(name, value string) error {
	return effect.Do(k.hook, opSysctl, func() error { return writeSysctl(name, value) })
}

func sysctlPath(name string) string { return "/proc/sys/" + name }

func readSysctl(name string) (string, error) {
	if !fs.ValidPath(name) {
		return "", fs.ErrNotExist
	}
	value, err := os.ReadFile(sysctlPath(name))
	return strings.TrimSpace(string(value)), err
}

// writeSysctl writes without package os, which would try to poll the file first:
// it is on the way of every TAP.
func writeSysctl(name, value string) error {
	if !fs.ValidPath(name) {
		return fs.ErrNotExist
	}
	fd, err := unix.Open(sysctlPath(name), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(value))
	if closed := unix.Close(fd); err == nil {
		err = closed
	}
	return err
}

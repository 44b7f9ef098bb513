package qemu

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// checkTAP returns an error when there is no device of the name. QEMU, which is
// root, would make one: a TAP of our name that no VM owns and no rule lets through.
func checkTAP(name string) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("look for TAP %q: %w", name, err)
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(socket, unix.SIOCGIFINDEX, request)
	}
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("TAP %q is not there", name)
	}
	if err != nil {
		return fmt.Errorf("look for TAP %q: %w", name, err)
	}
	return nil
}

package vmm

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// tapFlags are those that ZWRM makes its TAPs with (see host.CreateTAP).
const tapFlags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR

// ErrHeld says that a process has the TAP open already. A TAP has one queue, and
// thus room for one.
var ErrHeld = errors.New("is held by another process, such as a VMM that had it before")

// OpenTAP opens a VM's TAP, for its VMM to inherit: a VMM may open no TAP itself.
// It makes none: a TAP that is not there would be one that no rule knows.
func OpenTAP(name string) (*os.File, error) {
	file, err := openTAP(name)
	if err != nil {
		return nil, fmt.Errorf("TAP %q %w", name, err)
	}
	return file, nil
}

func openTAP(name string) (*os.File, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, fmt.Errorf("cannot be: %w", err)
	}
	file, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot be opened: %w", err)
	}
	request.SetUint16(tapFlags)
	err = control(file, func(fd int) error {
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			return err
		}
		return unix.IoctlIfreq(fd, unix.TUNGETIFF, request)
	})
	switch {
	case errors.Is(err, unix.EBUSY):
		err = ErrHeld
	case err != nil:
		err = fmt.Errorf("cannot be opened: %w", err)
	case request.Uint16()&unix.IFF_PERSIST == 0: // made just now, and gone when it is closed
		err = errors.New("is not there")
	default:
		return file, nil
	}
	file.Close()
	return nil, err
}

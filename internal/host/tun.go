package host

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
)

// tunFlags are the flags of a TAP of ours: Ethernet frames without packet
// information, behind a virtio header, by which the VMM leaves checksums and
// segmentation to the kernel. IFF_MULTI_QUEUE is not among them and must not be:
// the kernel would allocate 256 queues, 6.6 MiB for every TAP.
const tunFlags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR

// tun is an open descriptor of a TAP. While it is open, no VMM can open the TAP,
// which has a single queue.
type tun struct{ fd int }

// errExists says that there is a link of the name, of whichever kind.
var errExists = errors.New("a link of this name exists")

// openTUN opens a TAP with certain flags. Only the flags of a TAP of ours let it be
// opened that is there.
func openTUN(name string, flags uint16) (tun, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return tun{}, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		_ = unix.Close(fd)
		return tun{}, err
	}
	return tun{fd}, nil
}

// newTUN makes a TAP. Until persist is called, it goes when the descriptor does:
// a process that is killed leaves nothing.
func (k *Kernel) newTUN(op effect.Op, name string) (t tun, err error) {
	err = effect.Do(k.hook, op, func() error {
		t, err = openTUN(name, tunFlags|unix.IFF_TUN_EXCL)
		return err
	})
	switch {
	case err == nil:
		return t, nil
	case errors.Is(err, unix.EBUSY): // IFF_TUN_EXCL (drivers/net/tun.c tun_set_iff)
		return tun{}, errExists
	}
	return tun{}, fmt.Errorf("make link: %w", err)
}

// own makes the TAP root's: nobody else can open it, not even those whom udev lets
// open /dev/net/tun, which is everybody on most hosts. A VMM inherits it open.
func (t tun) own() error {
	if err := unix.IoctlSetInt(t.fd, unix.TUNSETOWNER, 0); err != nil {
		return fmt.Errorf("make link root's: %w", err)
	}
	return nil
}

// ownTAP makes an existing TAP root's. One that a process has open stays as it is:
// only that process could change it.
func (k *Kernel) ownTAP(name string) error {
	t, err := openTUN(name, tunFlags)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil
	case err != nil:
		return fmt.Errorf("open link: %w", err)
	}
	return errors.Join(effect.Do(k.hook, opOwnTAP, t.own), t.close())
}

// persist makes the TAP outlive the descriptor.
func (t tun) persist() error {
	if err := unix.IoctlSetInt(t.fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("make link persistent: %w", err)
	}
	return nil
}

// close closes the descriptor.
func (t tun) close() error { return unix.Close(t.fd) }

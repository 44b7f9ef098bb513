package host

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
	"zwrm/internal/host/netlink"
	"zwrm/internal/model"
)

// Recycle makes closed TAPs of VMs that are gone as good as new for others, and gives
// them an alias: what their VMMs have set through the descriptor stays with a TAP
// otherwise, and the next VMM would get its packets through the filter of the last.
// Addresses and settings that other programs set are not looked at.
//
// It returns those that it made so. One that is gone, open, or not closed is none of
// them, and no error.
func (k *Kernel) Recycle(ctx context.Context, alias string, names ...string) ([]string, error) {
	var done []string
	var name []*netlink.Request
	for _, tap := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		index, err := k.recycle(tap)
		if err != nil {
			return nil, fmt.Errorf("recycle TAP %q: %w", tap, err)
		}
		if index == 0 {
			continue
		}
		request := netlink.NewLink(unix.RTM_SETLINK, 0, index, 0, 0)
		request.Text(unix.IFLA_IFALIAS, alias)
		name = append(name, request)
		done = append(done, tap)
	}
	if err := k.change(k.route, opSetAlias, name...); err != nil {
		return nil, fmt.Errorf("mark recycled TAPs: %w", linkError(err))
	}
	return done, nil
}

// recycle resets a TAP and returns its index, 0 for one that cannot be.
func (k *Kernel) recycle(name string) (index int, err error) {
	k.making.Lock()
	defer k.making.Unlock()
	syscall.ForkLock.RLock() // as for a new one
	defer syscall.ForkLock.RUnlock()
	have, err := lookUp(k.route, name)
	if errors.Is(err, ErrNoLink) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if have.foreign(name) != nil || have.Group != model.GroupUnassigned || have.Opened || have.multiQueue {
		return 0, nil
	}
	err = effect.Do(k.hook, opRecycle, func() error { return resetTAP(name) })
	if errors.Is(err, unix.EBUSY) {
		return 0, nil // somebody has opened it since
	}
	return have.Index, err
}

// resetTAP takes back all that whoever has a TAP open can set of it and that outlives
// the descriptor (drivers/net/tun.c __tun_chr_ioctl), but for its Ethernet address and
// its being persistent, which a list of links shows.
func resetTAP(name string) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	t := tun{fd}
	request, err := unix.NewIfreq(name)
	if err == nil {
		// All of these are set, and others taken away. Without the last one the filter
		// of before would be attached, by its address in that process.
		request.SetUint16(tunFlags | unix.IFF_NOFILTER)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err == nil {
		err = t.reset()
	}
	return errors.Join(err, t.close())
}

// tunFilter is struct tun_filter of linux/if_tun.h, without addresses.
type tunFilter struct{ flags, count uint16 }

// vnetHeader is the length of struct virtio_net_hdr, which a new TAP has.
const vnetHeader = 10

func (t tun) reset() error {
	var everything tunFilter
	none := int32(-1)
	for _, step := range []struct {
		what    string
		request uint
		value   unsafe.Pointer
	}{
		{"detach the filter", unix.TUNDETACHFILTER, unsafe.Pointer(&unix.SockFprog{})},
		{"take all addresses", unix.TUNSETTXFILTER, unsafe.Pointer(&everything)},
		{"remove the steering program", unix.TUNSETSTEERINGEBPF, unsafe.Pointer(&none)},
		{"remove the filter program", unix.TUNSETFILTEREBPF, unsafe.Pointer(&none)},
	} {
		if err := ioctlPointer(t.fd, step.request, step.value); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	for _, step := range []struct {
		what    string
		request uint
		value   int
	}{
		{"set the length of headers", unix.TUNSETVNETHDRSZ, vnetHeader},
		{"set the send buffer", unix.TUNSETSNDBUF, 1<<31 - 1},
		{"have little-endian headers off", unix.TUNSETVNETLE, 0},
	} {
		value := int32(step.value)
		if err := ioctlPointer(t.fd, step.request, unsafe.Pointer(&value)); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	big := int32(0) // only a kernel that knows of big-endian headers has them
	if err := ioctlPointer(t.fd, unix.TUNSETVNETBE, unsafe.Pointer(&big)); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("have big-endian headers off: %w", err)
	}
	if err := unix.IoctlSetInt(t.fd, unix.TUNSETOFFLOAD, 0); err != nil {
		return fmt.Errorf("have offloads off: %w", err)
	}
	return t.own()
}

func ioctlPointer(fd int, request uint, value unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(value))
	if errno != 0 {
		return errno
	}
	return nil
}

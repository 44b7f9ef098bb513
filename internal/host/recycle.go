package host

import (
	"context"
	"errors"
	"fmt"
	"math"
	"syscall"

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
	// These flags are set, and others taken away. Without the last one the filter of
	// before would be attached, by its address in that process.
	t, err := openTUN(name, tunFlags|unix.IFF_NOFILTER)
	if err != nil {
		return err
	}
	return errors.Join(t.reset(), t.close())
}

// vnetHeader is the length of struct virtio_net_hdr, which a new TAP has.
const vnetHeader = 10

func (t tun) reset() error {
	for _, step := range []struct {
		what    string
		request uint
		value   int
	}{
		{"detach the filter", unix.TUNDETACHFILTER, 0},
		{"take all addresses", unix.TUNSETTXFILTER, 0}, // struct tun_filter with no flag and no address
		{"remove the steering program", unix.TUNSETSTEERINGEBPF, -1},
		{"remove the filter program", unix.TUNSETFILTEREBPF, -1},
		{"set the length of headers", unix.TUNSETVNETHDRSZ, vnetHeader},
		{"set the send buffer", unix.TUNSETSNDBUF, math.MaxInt32},
		{"have little-endian headers off", unix.TUNSETVNETLE, 0},
		{"have big-endian headers off", unix.TUNSETVNETBE, 0},
	} {
		err := unix.IoctlSetPointerInt(t.fd, step.request, step.value)
		if step.request == unix.TUNSETVNETBE && errors.Is(err, unix.EINVAL) {
			continue // only a kernel that knows of them has them
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	if err := unix.IoctlSetInt(t.fd, unix.TUNSETOFFLOAD, 0); err != nil {
		return fmt.Errorf("have offloads off: %w", err)
	}
	return t.own()
}

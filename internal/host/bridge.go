package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
)

// EnsureBridge makes a bridge, or brings one of ours to what is asked for: up,
// with exactly this IPv4 address, without IPv6 and without the spanning tree
// protocol. Ports are nobody's business here; ZWRM attaches none.
//
// The alias says that a bridge is ours. A link of that name with another alias,
// or none, is left alone, and the error wraps ErrForeign. A process that is
// killed in the middle leaves nothing, or a bridge that the next call completes.
func (k *Kernel) EnsureBridge(ctx context.Context, name string, address netip.Prefix, alias string) error {
	if err := k.ensureBridge(ctx, name, address, alias); err != nil {
		return fmt.Errorf("make bridge %q: %w", name, err)
	}
	return nil
}

func (k *Kernel) ensureBridge(ctx context.Context, name string, address netip.Prefix, alias string) error {
	switch {
	case !validName(name):
		return errors.New("no link can have this name")
	case !address.IsValid() || !address.Addr().Is4():
		return fmt.Errorf("address %q is not IPv4", address)
	}
	k.making.Lock()
	defer k.making.Unlock()
	k.changes.RLock()
	defer k.changes.RUnlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	have, err := k.routed(name)
	if errors.Is(err, ErrNoLink) {
		return k.newBridge(name, address, alias)
	}
	if err != nil {
		return err
	}
	if have.Kind != KindBridge || have.Alias != alias || have.Name != name {
		return fmt.Errorf("the name is that of a link of kind %q with alias %q: %w", have.Kind, have.Alias, ErrForeign)
	}
	if have.isBridge(address) {
		return nil
	}
	request := netlink.NewLink(unix.RTM_NEWLINK, 0, have.Index, 0, 0)
	withoutSTP(request)
	if err := k.change(k.route, opShapeBridge, request); err != nil {
		return fmt.Errorf("switch STP off: %w", linkError(err))
	}
	if err := k.finishBridge(name, address, have); err != nil {
		return err
	}
	if len(have.Unrouted) == 0 {
		return nil
	}
	return k.makeRoutes(have.Index, address)
}

// newBridge makes a bridge, or leaves none behind.
func (k *Kernel) newBridge(name string, address netip.Prefix, alias string) error {
	create := netlink.NewLink(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0, 0, 0)
	create.Text(unix.IFLA_IFNAME, name)
	withoutSTP(create)
	// The kernel takes no alias when it makes a link. Both requests are one system
	// call, so no bridge is left that a later start would take for a stranger's.
	mark := netlink.NewLink(unix.RTM_SETLINK, 0, 0, 0, 0)
	mark.Text(unix.IFLA_IFNAME, name)
	mark.Text(unix.IFLA_IFALIAS, alias)
	err := k.change(k.route, opMakeBridge, create, mark)
	if create.Err() != nil {
		return fmt.Errorf("make link: %w", create.Err())
	}
	var have device
	if err == nil {
		have, err = k.device(name)
	}
	if err == nil {
		err = k.finishBridge(name, address, have)
	}
	if err != nil {
		return errors.Join(err, k.deleteNew(name))
	}
	return nil
}

// withoutSTP adds to a message about a link that it is a bridge without the
// spanning tree protocol.
func withoutSTP(r *netlink.Request) {
	r.Nest(unix.IFLA_LINKINFO, func() {
		r.Text(unix.IFLA_INFO_KIND, string(KindBridge))
		r.Nest(unix.IFLA_INFO_DATA, func() { r.Uint32(unix.IFLA_BR_STP_STATE, 0) })
	})
}

// finishBridge gives a bridge its one address, brings it up and checks the whole.
func (k *Kernel) finishBridge(name string, address netip.Prefix, have device) error {
	if k.ipv6 {
		if err := k.SetSysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1"); err != nil {
			return err
		}
	}
	if err := k.address(have, address); err != nil {
		return err
	}
	have, err := k.device(name)
	if err != nil {
		return err
	}
	if !have.isBridge(address) {
		return fmt.Errorf("the kernel did not take it: STP is %t, up is %t, addresses are %s", have.stp, have.Up, have.Addresses)
	}
	return nil
}

// isBridge reports whether a bridge of ours is as asked for.
func (d *device) isBridge(address netip.Prefix) bool {
	return d.Up && !d.stp && !d.ipv6 && len(d.Addresses) == 1 && d.Addresses[0] == address && len(d.Unrouted) == 0
}

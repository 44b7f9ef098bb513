package verdict

import (
	"context"
	"net/netip"

	"zwrm/internal/firewall"
	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// end is one end of the way.
type end struct {
	name    string     // as people call it
	address netip.Addr // not valid: not known yet
	vm      *model.VM  // nil: none
	host    bool       // the host itself
	outside bool       // any machine of the internet
}

// resolve finds out who the two ends are, by which addresses they speak, and by which
// device the packet comes.
func (c *inquiry) resolve(ctx context.Context, q Question) (err error) {
	if c.from, err = c.end(q.Source); err != nil {
		return err
	}
	if c.to, err = c.end(q.Dest); err != nil {
		return err
	}
	if c.from.vm != nil && c.to.vm != nil && c.from.vm.ID == c.to.vm.ID {
		return model.Problemf(model.Invalid, "%q is both ends: what a guest sends to itself does not leave it", c.from.name)
	}
	if c.from.address.Is6() || c.to.address.Is6() {
		return c.resolveIPv6()
	}
	if err := c.findAddresses(ctx); err != nil {
		return err
	}
	in, err := c.enters(ctx)
	if err != nil {
		return err
	}
	c.flow = firewall.Flow{Family: firewall.IPv4, From: c.device(in), Source: c.from.address, Dest: c.to.address}
	return nil
}

// end returns who is meant.
func (c *inquiry) end(text string) (end, error) {
	switch text {
	case Internet:
		return end{name: "the internet", outside: true}, nil
	case Host:
		return end{name: "the host", host: true}, nil
	}
	address, err := netip.ParseAddr(text)
	isAddress := err == nil
	address = address.Unmap()
	for i, vm := range c.VMs {
		guest := c.Layout.Guest(vm.Slot)
		if isAddress && guest == address || !isAddress && string(vm.Name) == text {
			return end{name: string(vm.Name), address: guest, vm: &c.VMs[i]}, nil
		}
	}
	if isAddress {
		return end{name: address.String(), address: address}, nil
	}
	problem := model.Problemf(model.NotFound, "no VM named %q", text)
	for _, vm := range c.VMs {
		if string(vm.AppName) == text {
			return end{}, problem.WithHint("%q is an app: name one of its VMs, such as %s", text, vm.Name)
		}
	}
	return end{}, problem.WithHint("zwrm ps lists the VMs; a VM, an IP address, %s and %s are possible", Internet, Host)
}

// resolveIPv6 puts together all there is to know of an IPv6 packet: VMs have no
// address that it could come from or go to.
func (c *inquiry) resolveIPv6() error {
	for _, e := range []end{c.from, c.to} {
		if e.vm == nil && e.address.Is4() {
			return model.Problemf(model.Invalid, "%s and %s are addresses of different families", c.from.name, c.to.name)
		}
	}
	c.flow = firewall.Flow{Family: firewall.IPv6, From: c.deviceIPv6(c.from), To: c.deviceIPv6(c.to)}
	if c.from.address.Is6() {
		c.flow.Source = c.from.address
	}
	if c.to.address.Is6() {
		c.flow.Dest = c.to.address
	}
	return nil
}

// deviceIPv6 returns the device that leads to an end of an IPv6 packet.
func (c *inquiry) deviceIPv6(e end) firewall.Device {
	switch {
	case e.vm != nil:
		return c.device(e.vm.Slot.TAP())
	case e.host:
		return firewall.Device{}
	}
	return c.device(c.External)
}

// findAddresses gives an address to the ends that are known by a word.
func (c *inquiry) findAddresses(ctx context.Context) (err error) {
	if c.to.host {
		if c.to.address, err = c.hostAddress(); err != nil {
			return err
		}
	}
	for _, e := range []*end{&c.from, &c.to} {
		if e.outside {
			if e.address, err = c.outside(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// hostAddress returns by which of its addresses the sender knows the host: a VM by
// that of its gateway.
func (c *inquiry) hostAddress() (netip.Addr, error) {
	switch {
	case c.from.vm != nil:
		return c.Layout.Gateway(c.from.vm.Slot), nil
	case c.from.host:
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	external, _ := c.link(c.External)
	if len(external.Addresses) == 0 {
		return netip.Addr{}, model.Problemf(model.Conflict, "interface %q has no IPv4 address to know the host by", c.External).
			WithHint("name an address of the host")
	}
	return external.Addresses[0].Addr(), nil
}

// outside returns an address that stands for the internet: the first of some that no
// machine has, to which the host's way leads by the external interface and that no
// setting is about.
func (c *inquiry) outside(ctx context.Context) (netip.Addr, error) {
	candidates := []netip.Addr{
		netip.AddrFrom4([4]byte{203, 0, 113, 1}), // RFC 5737, for documentation
		netip.AddrFrom4([4]byte{198, 51, 100, 1}),
		netip.AddrFrom4([4]byte{192, 0, 2, 1}),
		netip.AddrFrom4([4]byte{198, 18, 0, 1}), // RFC 2544, for benchmarks
		netip.AddrFrom4([4]byte{198, 19, 0, 1}),
	}
	for _, address := range candidates {
		hop, err := c.router.Route(ctx, host.RouteQuery{Dest: address})
		if err != nil {
			return netip.Addr{}, err
		}
		if hop.Type == host.RouteUnicast && hop.Device == c.External && !c.mentioned(address) {
			return address, nil
		}
	}
	return candidates[0], nil // the answer says why it does not work
}

// mentioned reports whether an address is one that the configuration is about.
func (c *inquiry) mentioned(address netip.Addr) bool {
	for _, denied := range c.EgressDeny {
		if denied.Contains(address) {
			return true
		}
	}
	return c.Layout.Subnet().Contains(address)
}

// enters returns the device by which the packet comes to the host; empty: the host
// sends it itself. An address that nobody has told us of comes by the device that the
// host would answer it by.
func (c *inquiry) enters(ctx context.Context) (string, error) {
	switch {
	case c.from.vm != nil:
		return c.from.vm.Slot.TAP(), nil
	case c.from.host:
		return "", nil
	case c.from.outside:
		return c.External, nil
	}
	if c.from.address.IsMulticast() || c.from.address.IsUnspecified() {
		return "", model.Problemf(model.Invalid, "nobody sends from address %s", c.from.address)
	}
	back, err := c.router.Route(ctx, host.RouteQuery{Dest: c.from.address})
	switch {
	case err != nil:
		return "", err
	case back.Type == host.RouteLocal:
		return "", nil // an address of the host
	case back.Device == "":
		return c.External, nil
	}
	return back.Device, nil
}

// vmOf returns the VM that has a device.
func (c *inquiry) vmOf(device string) (model.VM, bool) {
	slot, ok := ipam.ParseTAP(device)
	for _, vm := range c.VMs {
		if ok && vm.Slot == slot {
			return vm, true
		}
	}
	return model.VM{}, false
}

package verdict

import (
	"fmt"

	"zwrm/internal/firewall"
	"zwrm/internal/host"
)

// why says the reason of a decision as a sentence about the two ends.
func (c *inquiry) why(a Answer) string {
	from, to, flow := c.from.name, c.to.name, a.Flow
	switch a.Reason {
	case firewall.Unassigned:
		return c.closed()
	case firewall.StrayTAP:
		return fmt.Sprintf("%s is named like a TAP of ZWRM and is in no group of ours, so it carries nothing", c.strayDevice())
	case firewall.Spoofed:
		return fmt.Sprintf("the guest behind %s may send from its own address only, not from %s", flow.From.Name, flow.Source)
	case firewall.Multicast:
		return fmt.Sprintf("VMs send to single machines only, and %s is more than one", flow.Dest)
	case firewall.NoIPv6:
		return "IPv6 of VMs is off"
	case firewall.SameApp:
		return fmt.Sprintf("%s and %s are of app %s", from, to, a.Rule.App)
	case firewall.OtherApp:
		if c.from.vm != nil && c.to.vm != nil && c.from.vm.App == c.to.vm.App {
			return fmt.Sprintf("%s and %s are not both in the group of app %s: zwrm network check", flow.From.Name, flow.To.Name, c.from.vm.AppName)
		}
		return fmt.Sprintf("%s and %s are of different apps", from, to)
	case firewall.NoPrivate:
		return "private networking is off, so VMs do not reach each other"
	case firewall.Unowned:
		if why := c.noTAP(c.to); why != "" {
			return why
		}
		return fmt.Sprintf("no VM has %s, which is an address of the VMs' subnet", flow.Dest)
	case firewall.EgressDenied:
		return fmt.Sprintf("egress_deny lists %s", a.Rule.Dest)
	case firewall.Internet:
		return fmt.Sprintf("VMs reach the internet by %s", flow.To.Name)
	case firewall.OtherDevice:
		return fmt.Sprintf("VMs leave the host by %s only, and the way to %s is by %s", c.External, to, flow.To.Name)
	case firewall.Unpublished:
		return fmt.Sprintf("nothing of %s is published: connections with a VM from outside begin in the VM", to)
	case firewall.Ping:
		return "a VM may ping its gateway"
	case firewall.HostAccess:
		return fmt.Sprintf("host_access lists %s", a.Rule.Service)
	case firewall.HostClosed:
		return "of the host, VMs reach only what host_access lists, and only on their gateway"
	case firewall.FromHost:
		return "the host reaches its VMs"
	case NoRule:
		return "no rule of ZWRM is about it"
	}
	return string(a.Reason) // of a packet that no question makes
}

// closed says which of the two devices is closed, and why.
func (c *inquiry) closed() string {
	for _, device := range []firewall.Device{c.flow.From, c.flow.To} {
		if device.Name == "" || device.Group.App() != 0 || !device.Group.Ours() {
			continue
		}
		vm, ok := c.vmOf(device.Name)
		switch {
		case ok && !vm.State.Open():
			return fmt.Sprintf("%s is %s, and its network closed", vm.Name, vm.State)
		case ok:
			return fmt.Sprintf("%s, the TAP of %s, is in no app's group: zwrm network check", device.Name, vm.Name)
		}
		return fmt.Sprintf("no VM has the TAP %s", device.Name)
	}
	return "a TAP on its way is of no app"
}

func (c *inquiry) strayDevice() string {
	if stray := c.flow.From; stray.Name != c.External && stray.Name != "" && !stray.Group.Ours() {
		return stray.Name
	}
	return c.flow.To.Name
}

// noTAP says why an end that is a VM has no network; empty: it has, or is no VM.
func (c *inquiry) noTAP(e end) string {
	if e.vm == nil {
		return ""
	}
	tap := e.vm.Slot.TAP()
	link, ok := c.link(tap)
	state := ""
	if !e.vm.State.Open() {
		state = fmt.Sprintf(", which is %s", e.vm.State)
	}
	switch {
	case !ok:
		return fmt.Sprintf("%s, the TAP of %s%s, is missing", tap, e.vm.Name, state)
	case !link.Up:
		return fmt.Sprintf("%s, the TAP of %s%s, is down", tap, e.vm.Name, state)
	}
	return ""
}

func (c *inquiry) noRoute(refusal host.RouteType) string {
	way := fmt.Sprintf("from %s to %s", c.flow.Source, c.flow.Dest)
	if !c.flow.Source.IsValid() {
		way = fmt.Sprintf("to %s", c.flow.Dest)
	}
	switch refusal {
	case host.RouteProhibited:
		return "a route of this host forbids the way " + way
	case host.RouteRefused:
		return "the kernel throws away what goes " + way + ": a blackhole route, or an address that cannot be"
	}
	return "the kernel has no route " + way + ", or does not forward"
}

package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"zwrm/internal/config"
	"zwrm/internal/firewall"
	"zwrm/internal/model"
)

// Sysctl is a kernel setting by its path below /proc/sys, as in
// "net/ipv4/ip_forward".
type Sysctl struct{ Name, Value string }

// BridgeAlias is the alias (IFLA_IFALIAS) by which a later zwrmd knows the bridge
// of private networking for its own.
const BridgeAlias = "zwrm private networking"

// Bridge is the wanted state of the bridge of private networking: a device
// without ports that holds an address. No VM's traffic goes through it.
type Bridge struct {
	Name    string
	Address netip.Prefix // the first address of the bridge's subnet
}

// Uplink is what the plan has to know of the interface to the internet.
type Uplink struct {
	Name string
	MTU  int // bytes
}

// Host is the wanted state of everything that ZWRM keeps in the kernel.
type Host struct {
	Sysctls []Sysctl
	Bridge  *Bridge // nil: private networking is off
	Links   []Link  // ordered by slot
	Policy  firewall.Policy
}

// Base returns the plan of a host without VMs.
func Base(network config.Network, uplink Uplink) Host {
	host := Host{
		Sysctls: []Sysctl{{"net/ipv4/ip_forward", "1"}, {"net/ipv4/conf/" + uplink.Name + "/forwarding", "1"}},
		Policy: firewall.Policy{
			Subnet:     network.Layout.Subnet(),
			External:   uplink.Name,
			Private:    network.Bridge.Enabled,
			EgressDeny: network.EgressDeny,
			HostAccess: network.HostAccess,
		},
	}
	if network.Bridge.Enabled {
		subnet := network.Bridge.Subnet
		host.Bridge = &Bridge{network.Bridge.Name, netip.PrefixFrom(subnet.Addr().Next(), subnet.Bits())}
	}
	return host
}

// ForVMs returns the plan of a host with the given VMs.
func ForVMs(network config.Network, uplink Uplink, vms []model.VM) Host {
	host := Base(network, uplink)
	host.Links = make([]Link, 0, len(vms))
	for _, vm := range vms {
		host.Links = append(host.Links, VM(network, MTU(network, uplink), vm))
	}
	slices.SortFunc(host.Links, func(a, b Link) int { return a.Address.Addr().Compare(b.Address.Addr()) })
	host.Policy.Apps = Apps(vms)
	return host
}

// MTU returns the MTU of every TAP: that of the configuration, else the uplink's,
// so that no packet from a guest is too large for the way out.
func MTU(network config.Network, uplink Uplink) int {
	if network.MTU != 0 {
		return network.MTU
	}
	return uplink.MTU
}

// Apps returns the apps that need a rule, ordered by group: those with two VMs
// or more that may send and receive. One VM alone has nobody to talk to.
func Apps(vms []model.VM) []firewall.App {
	names := map[model.Group]model.Name{}
	open := map[model.Group]int{}
	for _, vm := range vms {
		if vm.State.Open() {
			names[vm.App.Group()] = vm.AppName
			open[vm.App.Group()]++
		}
	}
	var apps []firewall.App
	for group, n := range open {
		if n >= 2 {
			apps = append(apps, firewall.App{Name: names[group], Group: group})
		}
	}
	slices.SortFunc(apps, func(a, b firewall.App) int { return cmp.Compare(a.Group, b.Group) })
	return apps
}

package preflight

import (
	"fmt"
	"net/netip"
	"strings"

	"zwrm/internal/config"
	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/plan"
)

// mainTable is the number of the routing table that packets go by unless a rule
// says otherwise (RT_TABLE_MAIN in linux/rtnetlink.h).
const mainTable = 254

// Facts is what the host is like.
type Facts struct {
	Root     bool  // zwrmd runs as root
	TUN      error // why /dev/net/tun cannot be opened; nil: it can
	Firewall error // why the dataplane cannot be used here; nil: it can
	Users    error // why VMs cannot run as the uids that they are to have; nil: they can
	Links    []host.Link
	Routes   []host.Route
}

// Uplink returns the interface to the internet: the one configured, else that of
// the default route.
func Uplink(network config.Network, facts Facts) (plan.Uplink, *config.Problem) {
	name := network.ExternalInterface
	if name == "" {
		name = DefaultDevice(facts.Routes)
		if name == "" {
			return plan.Uplink{}, &config.Problem{Key: "network.external_interface", What: "is not set, and the host has no default route to take it from",
				Mend: "set it to the interface that leads to the internet"}
		}
	}
	for _, link := range facts.Links {
		if link.Name == name {
			return plan.Uplink{Name: name, MTU: link.MTU}, nil
		}
	}
	return plan.Uplink{}, &config.Problem{Key: "network.external_interface", Value: quote(name), What: "no interface of this name exists",
		Mend: "ip link shows the names"}
}

// DefaultDevice returns the device of the default route that the kernel prefers:
// that of the main table with the lowest metric. It is empty if there is none.
func DefaultDevice(routes []host.Route) string {
	var best *host.Route
	for i, route := range routes {
		if route.Dest.Bits() == 0 && route.Table == mainTable && (best == nil || route.Metric < best.Metric) {
			best = &routes[i]
		}
	}
	if best == nil {
		return ""
	}
	return best.Device
}

// Check returns everything about the host that stands in the way.
func Check(cfg config.Config, facts Facts) []config.Problem {
	var problems []config.Problem
	if !facts.Root {
		problems = append(problems, config.Problem{Key: "zwrmd", What: "does not run as root, so it cannot make links and rules", Mend: "run it as root"})
	}
	if facts.TUN != nil {
		problems = append(problems, config.Problem{Key: "/dev/net/tun", What: "cannot be opened: " + facts.TUN.Error(),
			Mend: "load it with: modprobe tun"})
	}
	if facts.Firewall != nil {
		problems = append(problems, config.Problem{Key: "network.firewall", Value: quote(string(cfg.Network.Firewall)), What: facts.Firewall.Error()})
	}
	if facts.Users != nil {
		problems = append(problems, config.Problem{Key: "vmm.uid_base", Value: fmt.Sprint(cfg.VMM.UIDBase), What: facts.Users.Error(),
			Mend: "choose the first of a range of uids that no account has"})
	}
	uplink, problem := Uplink(cfg.Network, facts)
	if problem != nil {
		problems = append(problems, *problem)
	} else if mtu := cfg.Network.MTU; mtu > uplink.MTU {
		problems = append(problems, config.Problem{Key: "network.mtu", Value: fmt.Sprint(mtu),
			What: fmt.Sprintf("is larger than that of interface %q, %d", uplink.Name, uplink.MTU), Mend: "use 0 to take it from there"})
	}
	problems = append(problems, checkSubnets(cfg.Network, facts)...)
	return append(problems, checkNames(cfg.Network, facts)...)
}

// SubnetChanged is the problem that VMs have addresses of another subnet than
// the configured one.
func SubnetChanged(old, now netip.Prefix) config.Problem {
	return config.Problem{Key: "network.subnet", Value: quote(now.String()),
		What: fmt.Sprintf("was %s when the present VMs got their addresses", old),
		Mend: "set it back, destroy all apps and attachments, and change it then"}
}

// checkSubnets finds other uses of our addresses on the host.
func checkSubnets(network config.Network, facts Facts) []config.Problem {
	problems := overlaps("network.subnet", network.Layout.Subnet(), facts)
	if network.Bridge.Enabled {
		problems = append(problems, overlaps("network.bridge.subnet", network.Bridge.Subnet, facts)...)
	}
	return problems
}

func overlaps(key string, subnet netip.Prefix, facts Facts) []config.Problem {
	ours := map[string]bool{}
	for _, link := range facts.Links {
		ours[link.Name] = isTAP(link) || isBridge(link)
	}
	problem := func(what string) config.Problem {
		return config.Problem{Key: key, Value: quote(subnet.String()), What: what, Mend: "choose a range that the host does not use"}
	}
	for _, link := range facts.Links {
		for _, address := range link.Addresses {
			if !ours[link.Name] && subnet.Overlaps(address.Masked()) {
				return []config.Problem{problem(fmt.Sprintf("overlaps address %s of interface %q", address, link.Name))}
			}
		}
	}
	for _, route := range facts.Routes {
		if route.Dest.Bits() != 0 && !ours[route.Device] && subnet.Overlaps(route.Dest) {
			return []config.Problem{problem(fmt.Sprintf("overlaps the route to %s by %q", route.Dest, route.Device))}
		}
	}
	return nil
}

// checkNames finds links that have a name of ours and are not ours. The rules
// would let nothing through a link whose name begins like that of a TAP.
func checkNames(network config.Network, facts Facts) []config.Problem {
	var problems []config.Problem
	for _, link := range facts.Links {
		if strings.HasPrefix(link.Name, ipam.TAPPrefix) && !isTAP(link) {
			problems = append(problems, config.Problem{Key: "interface " + quote(link.Name),
				What: fmt.Sprintf("has the name of a TAP of ours, but is not ours: a %s in group %s", link.Kind, link.Group),
				Mend: "rename or delete it: ip link set " + link.Name + " name NEWNAME"})
		}
		if network.Bridge.Enabled && link.Name == network.Bridge.Name && !isBridge(link) {
			problems = append(problems, config.Problem{Key: "network.bridge.name", Value: quote(link.Name),
				What: fmt.Sprintf("is the name of a %s that is not ours", link.Kind), Mend: "choose another name"})
		}
	}
	return problems
}

func isTAP(link host.Link) bool {
	_, ok := ipam.ParseTAP(link.Name)
	return ok && link.Kind == host.KindTAP && link.Group.Known()
}

func isBridge(link host.Link) bool {
	return link.Kind == host.KindBridge && link.Alias == plan.BridgeAlias
}

func quote(s string) string { return fmt.Sprintf("%q", s) }

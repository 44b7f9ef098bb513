package doctor

import (
	"fmt"
	"strconv"
	"strings"

	"zwrm/internal/config"
	"zwrm/internal/plan"
	"zwrm/internal/preflight"
)

// The settings that are looked at, by their path below /proc/sys.
const (
	ipForward      = "net/ipv4/ip_forward"
	filterOfAll    = "net/ipv4/conf/all/rp_filter"
	connectionsMax = "net/netfilter/nf_conntrack_max"
	connectionsNow = "net/netfilter/nf_conntrack_count"
)

func filterOf(device string) string     { return "net/ipv4/conf/" + device + "/rp_filter" }
func forwardingOf(device string) string { return "net/ipv4/conf/" + device + "/forwarding" }

// Settings returns what Facts.Sysctls should have, by the name of the interface to
// the internet.
func Settings(external string) []string {
	return []string{ipForward, forwardingOf(external), filterOfAll, filterOf(external), connectionsMax, connectionsNow}
}

// forwarding looks whether the kernel sends packets on at all. zwrmd switches it on
// and keeps it so; what is found here was switched off since.
func forwarding(f Facts) []Finding {
	if f.Sysctls[ipForward] == "0" {
		return []Finding{{setting(ipForward, "0"), Problem, "stops all that VMs send to the internet and to each other",
			"sysctl -w net.ipv4.ip_forward=1, and look which program or file below /etc/sysctl.d sets it to 0"}}
	}
	external := forwardingOf(f.Started.Name)
	if f.Sysctls[external] == "0" {
		return []Finding{{setting(external, "0"), Problem, "stops all that the internet answers VMs",
			"sysctl -w " + dotted(external) + "=1"}}
	}
	return nil
}

// uplink asks preflight again: interfaces, addresses and routes come and go.
func uplink(f Facts) []Finding {
	if f.Host == nil {
		return nil
	}
	var all []Finding
	for _, p := range preflight.Check(f.Config, *f.Host) {
		all = append(all, Finding{subject(p), Problem, p.What, p.Mend})
	}
	return all
}

func subject(p config.Problem) string {
	if p.Value == "" {
		return p.Key
	}
	return p.Key + " = " + p.Value
}

// started compares the interface to the internet with what it was when zwrmd made
// rules and TAPs for it.
func started(f Facts) []Finding {
	if f.Host == nil {
		return nil
	}
	now, problem := preflight.Uplink(f.Config.Network, *f.Host)
	if problem != nil {
		return nil // uplink tells of it
	}
	if now.Name != f.Started.Name {
		return []Finding{{"default route", Problem,
			fmt.Sprintf("is by %q now, and the rules let VMs leave by %q, which it was by when zwrmd started", now.Name, f.Started.Name),
			"restart zwrmd, or set network.external_interface"}}
	}
	var all []Finding
	for _, link := range f.Host.Links {
		if link.Name == now.Name && !link.Up {
			all = append(all, Finding{"interface " + quote(now.Name), Problem, "is down, and VMs reach the internet by it", "ip link set " + now.Name + " up"})
		}
	}
	if tap := plan.MTU(f.Config.Network, f.Started); f.Config.Network.MTU == 0 && now.MTU < tap {
		all = append(all, Finding{"interface " + quote(now.Name), Warning,
			fmt.Sprintf("has MTU %d now, and VMs have %d: what they send in larger packets is slow or lost", now.MTU, tap),
			"restart zwrmd, which gives TAPs the MTU of the interface, and then the VMs"})
	}
	return append(all, detour(f, now.Name)...)
}

// detour finds a default route that leads elsewhere than by the configured
// interface. That may be meant: rules of policy routing can send VMs another way.
func detour(f Facts, external string) []Finding {
	device := preflight.DefaultDevice(f.Host.Routes)
	if device == "" || device == external {
		return nil
	}
	all := []Finding{{"default route", Warning,
		fmt.Sprintf("is by %q, and VMs may leave by %q only: without policy routing they do not reach the internet", device, external),
		fmt.Sprintf("set network.external_interface = %q, or add a rule and a table that route VMs by %q", device, external)}}
	if name, mode := filter(f, external); mode == 1 {
		all = append(all, Finding{setting(name, "1"), Warning,
			fmt.Sprintf("throws away what %q receives from where the default route leads not back to", external),
			"sysctl -w " + dotted(name) + "=2"})
	}
	return all
}

// sources looks how strictly the kernel itself checks on TAPs that an answer would go
// the way a packet came. The larger of two settings counts
// (Documentation/networking/ip-sysctl.rst, rp_filter), and 2 is the looser one.
func sources(f Facts) []Finding {
	if f.Sysctls[filterOfAll] != "2" {
		return nil
	}
	return []Finding{{setting(filterOfAll, "2"), Warning,
		"overrules the strict check of source addresses on TAPs: only the rules keep forged ones out",
		"sysctl -w " + dotted(filterOfAll) + "=0, so that the setting of each interface counts"}}
}

// filter returns the setting of rp_filter that counts for an interface.
func filter(f Facts, device string) (name string, mode int) {
	for _, sysctl := range []string{filterOfAll, filterOf(device)} {
		if n, err := strconv.Atoi(f.Sysctls[sysctl]); err == nil && n > mode {
			name, mode = sysctl, n
		}
	}
	return name, mode
}

// neighbours looks whether there is room for an entry for every VM.
func neighbours(f Facts) []Finding {
	const mend = "raise net.ipv4.neigh.default.gc_thresh1, 2 and 3, as 99-zwrmd.conf of make install does"
	n, capacity := f.Neighbours, f.Config.Network.Layout.Capacity()
	name := fmt.Sprintf("net.ipv4.neigh.default.gc_thresh3 = %d", n.Max)
	switch {
	case n.Max == 0:
		return nil
	case n.Entries*10 >= n.Max*9:
		return []Finding{{name, Problem, fmt.Sprintf("is the bound of the neighbour table, which has %d entries: when it is full, machines that are not in it are not reached", n.Entries), mend}}
	case f.VMs >= n.Max:
		return []Finding{{name, Problem, fmt.Sprintf("is the bound of the neighbour table, in which each of %d VMs needs an entry", f.VMs), mend}}
	case capacity > n.Max:
		return []Finding{{name, Warning, fmt.Sprintf("is the bound of the neighbour table, and the subnet holds %d VMs, each of which needs an entry", capacity), mend}}
	}
	return nil
}

// connections looks whether there is room for more tracked connections. Without it
// the kernel drops what would begin one, of VMs and of the host.
func connections(f Facts) []Finding {
	limit, errLimit := strconv.Atoi(f.Sysctls[connectionsMax])
	count, errCount := strconv.Atoi(f.Sysctls[connectionsNow])
	if errLimit != nil || errCount != nil || limit == 0 || count*10 < limit*8 {
		return nil
	}
	finding := Finding{setting(connectionsMax, strconv.Itoa(limit)), Warning, fmt.Sprintf("is the bound of tracked connections, and there are %d: when it is reached, new ones are dropped", count),
		fmt.Sprintf("sysctl -w %s=%d, and see with conntrack -L which VM has so many", dotted(connectionsMax), 4*limit)}
	if count*100 >= limit*95 {
		finding.Severity = Problem
	}
	return []Finding{finding}
}

// isLegacy reports whether iptables says that it is the one that speaks to the old
// interface of the kernel, as in "iptables v1.8.9 (legacy)".
func isLegacy(version string) bool { return strings.HasSuffix(version, "(legacy)") }

// setting returns a setting as sysctl prints it.
func setting(path, value string) string { return dotted(path) + " = " + value }

// dotted returns a setting's name as people write it. One of an interface that has a
// dot in its own name, such as eth0.7, keeps its slashes, which sysctl(8) takes too.
func dotted(path string) string {
	if strings.Contains(path, ".") {
		return path
	}
	return strings.ReplaceAll(path, "/", ".")
}

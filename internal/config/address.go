package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// The lengths that a range of ZWRM's own may have: no private range is larger
// than a /8 (RFC 1918), and less than a /30 has no room for host and guest.
const (
	minSubnetBits = 8
	maxSubnetBits = 30
)

// layout checks the subnet of the VMs.
func (l *loader) layout() ipam.Layout {
	const key = "network.subnet"
	text := l.raw.Network.Subnet
	subnet := l.subnet(key, text, "172.16.0.0/16")
	if !subnet.IsValid() {
		return ipam.Layout{}
	}
	layout, err := ipam.NewLayout(subnet)
	if err != nil {
		l.report(Problem{Key: key, Value: quote(text), What: err.Error(), Mend: `use a range such as "172.16.0.0/16"`})
	}
	return layout
}

// bridge checks private networking. Its own address must not be a VM's.
func (l *loader) bridge(network Network) Bridge {
	r := l.raw.Network.Bridge
	bridge := Bridge{Enabled: r.Enabled, Name: r.Name, Subnet: l.subnet("network.bridge.subnet", r.Subnet, "10.0.0.0/16")}
	l.link("network.bridge.name", r.Name, `use a name such as "zwrmd0"`)
	if r.Name == network.ExternalInterface && !l.faulty("network.bridge.name", "network.external_interface") {
		l.report(Problem{Key: "network.bridge.name", Value: quote(r.Name), What: "the same as network.external_interface",
			Mend: `use a name that no interface has, such as "zwrmd0"`})
	}
	if r.Enabled && !l.faulty("network.subnet", "network.bridge.subnet") && bridge.Subnet.Overlaps(network.Layout.Subnet()) {
		l.report(Problem{Key: "network.bridge.subnet", Value: quote(r.Subnet),
			What: fmt.Sprintf("overlaps network.subnet %q", network.Layout.Subnet()), Mend: "use a range outside of it"})
	}
	return bridge
}

// subnet checks a range of ZWRM's own. It returns the zero Prefix when it has
// reported a problem.
func (l *loader) subnet(key, text, example string) netip.Prefix {
	prefix, wrong := parseNetwork(text)
	switch {
	case wrong != (fault{}):
	case prefix.Bits() > maxSubnetBits:
		wrong = fault{fmt.Sprintf("longer than /%d, which is too small", maxSubnetBits), fmt.Sprintf("use a range such as %q", example)}
	case prefix.Bits() < minSubnetBits:
		wrong = fault{fmt.Sprintf("shorter than /%d: no private range is that large", minSubnetBits), fmt.Sprintf("use a range such as %q", example)}
	default:
		return prefix
	}
	l.report(Problem{Key: key, Value: quote(text), What: wrong.what, Mend: wrong.mend})
	return netip.Prefix{}
}

func (l *loader) egressDeny() []netip.Prefix {
	return list(l, "network.egress_deny", l.raw.Network.EgressDeny, parseNetwork)
}

// parseNetwork reads an IPv4 network address with its length.
func parseNetwork(text string) (netip.Prefix, fault) {
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, fault{"not an IPv4 network", `use the form ADDRESS/LENGTH, as in "172.16.0.0/16"`}
	case !prefix.Addr().Is4():
		return netip.Prefix{}, fault{"not IPv4", `use an IPv4 network, as in "172.16.0.0/16"`}
	case prefix != prefix.Masked():
		return netip.Prefix{}, fault{"not a network address", fmt.Sprintf("use %q", prefix.Masked())}
	}
	return prefix, fault{}
}

func (l *loader) dns() []netip.Addr {
	texts := l.raw.Network.DNS
	if len(texts) > maxDNS {
		l.report(Problem{Key: "network.dns", Value: show(texts),
			What: fmt.Sprintf("%d resolvers, where the kernel's ip= argument has room for %d", len(texts), maxDNS),
			Mend: fmt.Sprintf("keep %d of them", maxDNS)})
	}
	return list(l, "network.dns", texts, func(text string) (netip.Addr, fault) {
		addr, err := netip.ParseAddr(text)
		if err != nil || !addr.Is4() {
			return netip.Addr{}, fault{"not an IPv4 address", `use the form "1.1.1.1"`}
		}
		return addr, fault{}
	})
}

// listen checks the TCP address of the API.
func (l *loader) listen(text string) {
	const mend = `use the form HOST:PORT, as in "127.0.0.1:8080" or "[::1]:8080"`
	host, port, err := net.SplitHostPort(text)
	n, portErr := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil:
		l.report(Problem{Key: "server.listen", Value: quote(text), What: "not a TCP address", Mend: mend})
	case portErr != nil || n == 0:
		l.report(Problem{Key: "server.listen", Value: quote(text), What: "has no port between 1 and 65535", Mend: mend})
	case !isHost(host):
		l.report(Problem{Key: "server.listen", Value: quote(text), What: fmt.Sprintf("%q is not a host", shorten(host)), Mend: mend})
	}
}

// isHost reports whether the text is an IP address, a host name (RFC 1123
// section 2.1), or empty, which means all addresses of the host.
func isHost(text string) bool {
	if _, err := netip.ParseAddr(text); err == nil || text == "" {
		return true
	}
	labels := strings.Split(strings.ToLower(text), ".")
	for _, label := range labels {
		if _, err := model.ParseName(label); err != nil {
			return false
		}
	}
	// A name that ends in a number is a misspelt address.
	_, err := strconv.ParseUint(labels[len(labels)-1], 10, 64)
	return err != nil
}

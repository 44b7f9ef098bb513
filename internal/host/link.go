package host

import (
	"net/netip"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// Kind is a link's type as rtnetlink names it (IFLA_INFO_KIND), empty for
// hardware. Only the two modes of "tun" are told apart.
type Kind string

// The kinds that ZWRM makes, and the other mode of the first. Others are passed
// on as the kernel gives them.
const (
	KindTAP    Kind = "tap" // Ethernet frames
	KindTUN    Kind = "tun" // IP packets
	KindBridge Kind = "bridge"
)

// Link is what the kernel says of one network device.
type Link struct {
	Name      string
	Index     int
	Kind      Kind
	Group     model.Group
	MAC       ipam.MAC
	MTU       int // bytes
	Up        bool
	Opened    bool // of a TAP: a VMM has it open
	Alias     string
	Carrier   bool           // something is at its other end: of a TAP, a process that has it open
	Addresses []netip.Prefix // IPv4, in the order of the kernel
	// Unrouted are the routes that the kernel makes for Addresses and that somebody
	// took away: of the network, or of the address itself. None lacks while it is down.
	Unrouted  []netip.Prefix
	Hardening Hardening // of links that have the name prefix of our TAPs
}

// Hardening is how a TAP's per-device settings stand. The zero value is what a
// TAP that ZWRM made has.
//
// The wanted settings, each read back after it was set:
//
//	net.ipv4.conf.TAP.rp_filter = 1            source must route back (RFC 3704 strict)
//	net.ipv4.conf.TAP.arp_ignore = 1           answer ARP for the TAP's own address only
//	net.ipv4.conf.TAP.arp_announce = 2         ask with the TAP's own address only
//	net.ipv4.conf.TAP.proxy_arp = 0
//	net.ipv4.conf.TAP.send_redirects = 0
//	net.ipv4.conf.TAP.accept_redirects = 0
//	net.ipv4.conf.TAP.secure_redirects = 0
//	net.ipv4.conf.TAP.accept_source_route = 0
//	net.ipv4.conf.TAP.accept_local = 0
//	net.ipv4.conf.TAP.route_localnet = 0
//	net.ipv4.conf.TAP.forwarding = 1
//	net.ipv6.conf.TAP.disable_ipv6 = 1         where the kernel has IPv6
//
// Beside these it is root's, while no process has it open.
type Hardening struct {
	Wrong []string // settings that differ, as in "net.ipv4.conf.zvm3.rp_filter = 0, not 1"
}

// NotOwned is what Hardening says of a TAP that others than root can open.
const NotOwned = "its owner is not root"

// Route is an IPv4 route of any table but "local", which holds the addresses of
// the host itself. A route with several next hops is as many Routes.
type Route struct {
	Dest   netip.Prefix // 0.0.0.0/0: the default route
	Device string       // empty: no device, as of a route that refuses
	Table  uint32       // 254: main (RT_TABLE_MAIN)
	Metric uint32       // of routes to one destination, the one with the lowest is taken
}

package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
	"zwrm/internal/ipam"
)

// connected finds out which routes of links are there: those that the kernel makes by
// itself for their addresses.
type connected struct {
	links []Link
	at    map[int]int // place of a link whose routes are looked at, by its index
	first []int       // place of its first address in seen
	seen  [][2]bool   // the two routes of an address (see routesOf)
}

func newConnected(links []Link) *connected {
	c := &connected{links: links, at: make(map[int]int, len(links)), first: make([]int, len(links))}
	addresses := 0
	for i, l := range links {
		c.first[i] = addresses
		if l.Routes() {
			c.at[l.Index] = i
			addresses += len(l.Addresses)
		}
	}
	c.seen = make([][2]bool, addresses)
	return c
}

// Routes reports whether the routes of the link's addresses are looked at: those of
// TAPs and bridges are, which may be ours.
func (l Link) Routes() bool {
	return l.Kind == KindBridge || strings.HasPrefix(l.Name, ipam.TAPPrefix)
}

// read lists the routes of all links, or of the one with the given index: of the main
// table to networks, and of the table "local" to addresses.
func (c *connected) read(conn *netlink.Conn, list func(read func() error) error, index int) error {
	for which, table := range []byte{unix.RT_TABLE_MAIN, unix.RT_TABLE_LOCAL} {
		fixed := [unix.SizeofRtMsg]byte{0: unix.AF_INET, 4: table}
		request := netlink.NewRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP, fixed[:])
		if index != 0 { // the kernel heeds neither before 4.20, and lists all
			request.Uint32(unix.RTA_OIF, uint32(index))
		}
		err := list(func() error {
			for i := range c.seen {
				c.seen[i][which] = false // of a list that changed while it was read
			}
			return conn.Query(request, func(payload []byte) { c.note(payload, which) })
		})
		// A kernel that has had no route yet has no table (net/ipv4/fib_frontend.c
		// inet_dump_fib).
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("list routes: %w", err)
		}
	}
	return nil
}

// note takes in a route's message (struct rtmsg) of one of the two tables.
func (c *connected) note(payload []byte, which int) {
	if len(payload) < unix.SizeofRtMsg || payload[7] != unix.RTN_UNICAST && payload[7] != unix.RTN_LOCAL {
		return
	}
	var index int
	var dest netip.Prefix
	for attribute, value := range netlink.Attributes(payload[unix.SizeofRtMsg:]) {
		switch attribute {
		case unix.RTA_DST:
			if address, ok := netip.AddrFromSlice(value); ok {
				dest = netip.PrefixFrom(address, int(payload[1]))
			}
		case unix.RTA_OIF:
			index = int(netlink.Uint32(value, 0))
		}
	}
	i, ok := c.at[index]
	if !ok {
		return
	}
	for j, address := range c.links[i].Addresses {
		if routesOf(address)[which] == dest {
			c.seen[c.first[i]+j][which] = true
		}
	}
}

// fill fills in which routes of the links are missing.
func (c *connected) fill() {
	for _, i := range c.at {
		l := &c.links[i]
		l.Unrouted = nil
		if !l.Up {
			continue
		}
		for j, address := range l.Addresses {
			seen := c.seen[c.first[i]+j]
			if address.IsSingleIP() { // its network is the address itself
				seen[0] = seen[0] || seen[1]
			}
			for which, dest := range routesOf(address) {
				if !seen[which] {
					l.Unrouted = append(l.Unrouted, dest)
				}
			}
		}
	}
}

// routed returns one link with its addresses, and which of their routes are missing.
func (k *Kernel) routed(name string) (device, error) {
	d, err := k.device(name)
	if err != nil {
		return device{}, err
	}
	links := []Link{d.Link}
	found := newConnected(links)
	if err := found.read(k.route, retry, d.Index); err != nil {
		return device{}, linkError(err)
	}
	found.fill()
	d.Link = links[0]
	return d, nil
}

// makeRoutes makes the routes of a link's address: to its network, and to the address
// itself. A route to the same that somebody put in place of one goes.
func (k *Kernel) makeRoutes(index int, address netip.Prefix) error {
	var requests []*netlink.Request
	dests := routesOf(address)
	for _, dest := range slices.Backward(dests[:]) { // the address is a valid source by its own route
		fixed := [unix.SizeofRtMsg]byte{
			unix.AF_INET, byte(dest.Bits()), 0, 0,
			unix.RT_TABLE_MAIN, unix.RTPROT_KERNEL, unix.RT_SCOPE_LINK, unix.RTN_UNICAST,
		}
		if dest.IsSingleIP() {
			fixed[4], fixed[6], fixed[7] = unix.RT_TABLE_LOCAL, unix.RT_SCOPE_HOST, unix.RTN_LOCAL
		}
		request := netlink.NewRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, fixed[:])
		request.Bytes(unix.RTA_DST, dest.Addr().AsSlice())
		request.Uint32(unix.RTA_OIF, uint32(index))
		request.Bytes(unix.RTA_PREFSRC, address.Addr().AsSlice())
		requests = append(requests, request)
	}
	if err := k.change(k.route, opRoute, requests...); err != nil {
		return fmt.Errorf("make the routes of %s: %w", address, linkError(err))
	}
	return nil
}

// routesOf returns where the kernel makes routes to for an address of a link: in the
// main table, and in the table "local".
func routesOf(address netip.Prefix) [2]netip.Prefix {
	return [2]netip.Prefix{address.Masked(), netip.PrefixFrom(address.Addr(), address.Addr().BitLen())}
}

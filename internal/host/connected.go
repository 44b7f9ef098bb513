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

// connected are routes that the kernel makes by itself for the addresses of links.
type connected map[connectedRoute]struct{}

type connectedRoute struct {
	index int
	dest  netip.Prefix
}

// Routes reports whether the routes of the link's addresses are looked at: those of
// TAPs and bridges are, which may be ours.
func (l Link) Routes() bool {
	return l.Kind == KindBridge || strings.HasPrefix(l.Name, ipam.TAPPrefix)
}

// missing returns the routes that a link should have and has not.
func (c connected) missing(l Link) []netip.Prefix {
	if !l.Up || !l.Routes() {
		return nil
	}
	var missing []netip.Prefix
	for _, address := range l.Addresses {
		for _, dest := range routesOf(address) {
			if _, ok := c[connectedRoute{l.Index, dest}]; !ok {
				missing = append(missing, dest)
			}
		}
	}
	return missing
}

// connectedRoutes lists the routes of links that are wanted, or of the one with the
// given index: of the main table to networks, and of the table "local" to addresses.
func connectedRoutes(conn *netlink.Conn, list func(read func() error) error, index int, wanted func(index int) bool) (connected, error) {
	found := connected{}
	for _, table := range []byte{unix.RT_TABLE_MAIN, unix.RT_TABLE_LOCAL} {
		fixed := [unix.SizeofRtMsg]byte{0: unix.AF_INET, 4: table}
		request := netlink.NewRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP, fixed[:])
		if index != 0 { // the kernel heeds neither before 4.20, and lists all
			request.Uint32(unix.RTA_OIF, uint32(index))
		}
		err := list(func() error {
			return conn.Query(request, func(payload []byte) {
				if len(payload) < unix.SizeofRtMsg || payload[7] != unix.RTN_UNICAST && payload[7] != unix.RTN_LOCAL {
					return
				}
				var route connectedRoute
				for attribute, value := range netlink.Attributes(payload[unix.SizeofRtMsg:]) {
					switch attribute {
					case unix.RTA_DST:
						if address, ok := netip.AddrFromSlice(value); ok {
							route.dest = netip.PrefixFrom(address, int(payload[1]))
						}
					case unix.RTA_OIF:
						route.index = int(netlink.Uint32(value, 0))
					}
				}
				if wanted(route.index) {
					found[route] = struct{}{}
				}
			})
		})
		// A kernel that has had no route yet has no table (net/ipv4/fib_frontend.c
		// inet_dump_fib).
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("list routes: %w", err)
		}
	}
	return found, nil
}

// routed returns one link with its addresses, and which of their routes are missing.
func (k *Kernel) routed(name string) (device, error) {
	d, err := k.device(name)
	if err != nil {
		return device{}, err
	}
	found, err := connectedRoutes(k.route, retry, d.Index, func(index int) bool { return index == d.Index })
	if err != nil {
		return device{}, linkError(err)
	}
	d.Unrouted = found.missing(d.Link)
	return d, nil
}

// makeRoutes makes the routes of a link's address: to its network, and to the address
// itself. A route to the same that somebody put in place of one goes.
func (k *Kernel) makeRoutes(index int, address netip.Prefix) error {
	var requests []*netlink.Request
	for _, dest := range slices.Backward(routesOf(address)) { // the address is a valid source by its own route
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

// routesOf returns where the kernel makes routes to for an address of a link.
func routesOf(address netip.Prefix) []netip.Prefix {
	return []netip.Prefix{address.Masked(), netip.PrefixFrom(address.Addr(), address.Addr().BitLen())}
}

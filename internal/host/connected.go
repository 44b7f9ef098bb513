package host

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"strings"
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
		for _, dest := range []netip.Prefix{address.Masked(), netip.PrefixFrom(address.Addr(), address.Addr().BitLen())} {
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
		if err != nil {
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

// reroute makes the routes anew that are missing of a link's addresses. One to the same
// network that somebody put in place of it goes.
func (k *Kernel) reroute(have device) error {
	var requests []*netlink.Request
	for _, dest := range have.Unrouted {
		fixed := [unix.SizeofRtMsg]byte{
			unix.AF_INET, byte(dest.Bits()), 0, 0,
			unix.RT_TABLE_MAIN, unix.RTPROT_KERNEL, unix.RT_SCOPE_LINK, unix.RTN_UNICAST,
		}
		if dest.IsSingleIP() {
			fixed[4], fixed[6], fixed[7] = unix.RT_TABLE_LOCAL, unix.RT_SCOPE_HOST, unix.RTN_LOCAL
		}
		request := netlink.NewRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, fixed[:])
		request.Bytes(unix.RTA_DST, dest.Addr().AsSlice())
		request.Uint32(unix.RTA_OIF, uint32(have.Index))
		for _, address := range have.Addresses {
			if address.Masked() == dest || address.Addr() == dest.Addr() {
				request.Bytes(unix.RTA_PREFSRC, address.Addr().AsSlice())
				break
			}
		}
		requests = append(requests, request)
	}
	if err := k.change(k.route, opRoute, requests...); err != nil {
		return fmt.Errorf("make routes to %s: %w", have.Unrouted, linkError(err))
	}
	return nil
}

// rerouteLink looks whether routes of a link are missing, makes them anew and looks
// again.
func (k *Kernel) rerouteLink(name string) error {
	have, err := k.routed(name)
	if err != nil || len(have.Unrouted) == 0 {
		return err
	}
	if err := k.reroute(have); err != nil {
		return err
	}
	if have, err = k.routed(name); err == nil && len(have.Unrouted) > 0 {
		err = fmt.Errorf("the kernel did not take it: routes to %s are missing", have.Unrouted)
	}
	return err
}

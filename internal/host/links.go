package host

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
)

// Links returns every link of the namespace, in the order of their indexes. The
// links and their addresses are two lists: a link that is made or deleted in
// between may lack its addresses.
func (k *Kernel) Links(ctx context.Context) ([]Link, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var links []Link
	settings := TAPSettings()
	if err := k.list(func() error {
		links = links[:0]
		return k.dump.Query(linkDump(), func(payload []byte) {
			var d device
			d.parse(payload, settings)
			links = append(links, d.Link)
		})
	}); err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	at := make(map[int]*Link, len(links))
	for i := range links {
		at[links[i].Index] = &links[i]
	}
	if err := k.list(func() error {
		for i := range links {
			links[i].Addresses = nil
		}
		return k.addresses(k.dump, 0, func(index int, address netip.Prefix) {
			if link, ok := at[index]; ok {
				link.Addresses = append(link.Addresses, address)
			}
		})
	}); err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return links, nil
}

func linkDump() *netlink.Request {
	request := netlink.NewLink(unix.RTM_GETLINK, unix.NLM_F_DUMP, 0, 0, 0)
	request.Uint32(unix.IFLA_EXT_MASK, filterSkipStats)
	return request
}

// Routes returns the IPv4 routes of all tables but "local" (255). A route with
// several next hops is as many Routes.
func (k *Kernel) Routes(ctx context.Context) ([]Route, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	names := map[uint32]string{}
	if err := k.list(func() error {
		clear(names)
		return k.dump.Query(linkDump(), func(payload []byte) {
			var d device
			d.parse(payload, nil)
			names[uint32(d.Index)] = d.Name
		})
	}); err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var routes []Route
	if err := k.list(func() error {
		routes = routes[:0]
		fixed := [unix.SizeofRtMsg]byte{unix.AF_INET}
		return k.dump.Query(netlink.NewRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP, fixed[:]), func(payload []byte) {
			routes = appendRoute(routes, payload, names)
		})
	}); err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return routes, nil
}

// appendRoute reads a route's message (struct rtmsg).
func appendRoute(routes []Route, payload []byte, names map[uint32]string) []Route {
	if len(payload) < unix.SizeofRtMsg || payload[0] != unix.AF_INET || netlink.Uint32(payload, 8)&unix.RTM_F_CLONED != 0 {
		return routes
	}
	route := Route{Dest: netip.PrefixFrom(netip.IPv4Unspecified(), int(payload[1])), Table: uint32(payload[4])}
	var hops []byte
	for attribute, value := range netlink.Attributes(payload[unix.SizeofRtMsg:]) {
		switch attribute {
		case unix.RTA_DST:
			if address, ok := netip.AddrFromSlice(value); ok {
				route.Dest = netip.PrefixFrom(address, int(payload[1]))
			}
		case unix.RTA_OIF:
			route.Device = names[netlink.Uint32(value, 0)]
		case unix.RTA_TABLE: // for tables past 255, which the fixed part has no room for
			route.Table = netlink.Uint32(value, 0)
		case unix.RTA_PRIORITY:
			route.Metric = netlink.Uint32(value, 0)
		case unix.RTA_MULTIPATH:
			hops = value
		}
	}
	if route.Table == unix.RT_TABLE_LOCAL {
		return routes
	}
	if hops == nil {
		return append(routes, route)
	}
	for len(hops) >= unix.SizeofRtNexthop {
		route.Device = names[netlink.Uint32(hops, 4)]
		routes = append(routes, route)
		length := int(binary.NativeEndian.Uint16(hops))
		if length < unix.SizeofRtNexthop {
			break
		}
		hops = hops[min(length, len(hops)):]
	}
	return routes
}

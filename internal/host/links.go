package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
)

// Links returns every link of the namespace, in the order of their indexes. The
// links, their addresses and their routes are three lists: a link that is made or
// deleted in between may lack some.
func (k *Kernel) Links(ctx context.Context) ([]Link, error) {
	links, err := k.Devices(ctx)
	if err != nil {
		return nil, err
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
	return links, k.findUnrouted(links, false)
}

// Devices is Links without addresses and routes, which takes half as long.
func (k *Kernel) Devices(ctx context.Context) ([]Link, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return k.devices(func(Link) bool { return true })
}

// Weakened returns the links with the name prefix of our TAPs whose settings are not
// those of a TAP (see Hardening), without addresses and routes. The others cost no memory.
func (k *Kernel) Weakened(ctx context.Context) ([]Link, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return k.devices(func(l Link) bool { return len(l.Hardening.Wrong) > 0 })
}

// devices lists the links that are wanted, without addresses and routes.
func (k *Kernel) devices(wanted func(Link) bool) ([]Link, error) {
	var links []Link
	settings := TAPSettings()
	if err := k.list(func() error {
		links = links[:0]
		return k.dump.Query(linkDump(), func(payload []byte) {
			var d device
			d.parse(payload, settings)
			if wanted(d.Link) {
				links = append(links, d.Link)
			}
		})
	}); err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return links, nil
}

// LinksNamed returns those of the named links that there are. What it costs does
// not grow with the links that there are, but for one look through the routes.
func (k *Kernel) LinksNamed(ctx context.Context, names ...string) ([]Link, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var links []Link
	for _, name := range names {
		d, err := k.device(name)
		if errors.Is(err, ErrNoLink) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at link %q: %w", name, err)
		}
		if d.Name == name { // and not an alternative name of another
			links = append(links, d.Link)
		}
	}
	return links, k.findUnrouted(links, len(links) <= maxOneByOne)
}

// maxOneByOne is of up to how many links the routes are asked for one by one.
const maxOneByOne = 8

// findUnrouted fills in which routes of links are missing. Of a link that has gone
// meanwhile none is.
func (k *Kernel) findUnrouted(links []Link, oneByOne bool) error {
	if !oneByOne {
		found := newConnected(links)
		if err := found.read(k.dump, k.list, 0); err != nil {
			return err
		}
		found.fill()
		return nil
	}
	for i := range links {
		if !links[i].Routes() {
			continue
		}
		found := newConnected(links[i : i+1])
		err := found.read(k.dump, k.list, links[i].Index)
		if errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return err
		}
		found.fill()
	}
	return nil
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

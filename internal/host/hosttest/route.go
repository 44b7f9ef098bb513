package hosttest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"zwrm/internal/host"
)

// Route is host.Kernel's, for what the suite asks: by the main table, without rules
// of policy routing, and with the strict check of sources alone (rp_filter).
func (f *Fake) Route(ctx context.Context, q host.RouteQuery) (host.Hop, error) {
	op := "route " + q.Dest.String()
	if q.In != "" {
		op += " from " + q.Source.String() + " by " + q.In
	}
	err := errors.Join(ctx.Err(), f.allow(op))
	if err == nil && (!q.Dest.Is4() || q.Source.IsValid() && !q.Source.Is4()) {
		err = errors.New("it is not IPv4")
	}
	if err != nil {
		return host.Hop{}, fmt.Errorf("look up route to %s: %w", q.Dest, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if q.In == "" {
		return f.sent(q), nil
	}
	in, ok := f.links[q.In]
	if !ok {
		return host.Hop{}, fmt.Errorf("look up route to %s: by %q: %w", q.Dest, q.In, host.ErrNoLink)
	}
	return f.forwarded(q, in), nil
}

// sent returns the way of a packet of the host itself.
func (f *Fake) sent(q host.RouteQuery) host.Hop {
	hop := f.wayOf(q.Dest)
	hop.Source = q.Source
	switch l := f.links[hop.Device]; {
	case q.Source.IsValid() || hop.Type == host.RouteUnreachable:
	case hop.Type == host.RouteLocal:
		hop.Source = q.Dest
	case len(l.Addresses) > 0:
		hop.Source = l.Addresses[0].Addr()
	}
	return hop
}

// forwarded returns the way of a packet that a link receives.
func (f *Fake) forwarded(q host.RouteQuery, in *link) host.Hop {
	hop := f.wayOf(q.Dest)
	strict := *f.setting("net/ipv4/conf/" + in.Name + "/rp_filter") == 1 && f.sysctls["net/ipv4/conf/all/rp_filter"] != "2"
	switch {
	case q.Dest.IsLoopback() || q.Dest.IsUnspecified():
		hop = host.Hop{Type: host.RouteRefused}
	case hop.Type == host.RouteUnicast && *f.setting("net/ipv4/conf/" + in.Name + "/forwarding") == 0:
		hop = host.Hop{Type: host.RouteUnreachable}
	case hop.Type != host.RouteUnreachable && strict && f.wayOf(q.Source).Device != in.Name:
		hop = host.Hop{Type: host.RouteRefused}
	case hop.Type != host.RouteUnicast:
		hop.Device = ""
	}
	return hop
}

// wayOf returns where a packet of the host goes.
func (f *Fake) wayOf(dest netip.Addr) host.Hop {
	broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	if dest.IsLoopback() || dest.IsUnspecified() {
		return host.Hop{Type: host.RouteLocal}
	}
	for _, l := range f.links {
		for _, own := range l.Addresses {
			switch {
			case l.Up && own.Addr() == dest:
				return host.Hop{Type: host.RouteLocal}
			case l.Up && last(own) == dest:
				return host.Hop{Type: host.RouteBroadcast, Device: l.Name}
			}
		}
	}
	best := host.Route{Dest: netip.PrefixFrom(netip.IPv4Unspecified(), -1)} // shorter than any
	for _, r := range f.allRoutes() {
		longer := r.Dest.Bits() > best.Dest.Bits() || r.Dest.Bits() == best.Dest.Bits() && r.Metric < best.Metric
		if r.Table == mainTable && r.Dest.Contains(dest) && longer && f.links[r.Device].Up {
			best = r
		}
	}
	switch {
	case dest == broadcast:
		return host.Hop{Type: host.RouteBroadcast, Device: best.Device}
	case dest.IsMulticast():
		return host.Hop{Type: host.RouteMulticast, Device: best.Device}
	case best.Device == "":
		return host.Hop{Type: host.RouteUnreachable}
	}
	return host.Hop{Type: host.RouteUnicast, Device: best.Device}
}

// last returns the address of a network that means everybody on it; not valid: it
// has none.
func last(network netip.Prefix) netip.Addr {
	if !network.Addr().Is4() || network.Bits() > 30 {
		return netip.Addr{}
	}
	b := network.Addr().As4()
	for bit := network.Bits(); bit < 32; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	return netip.AddrFrom4(b)
}

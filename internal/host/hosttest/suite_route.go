package hosttest

import (
	"net/netip"

	"zwrm/internal/host"
)

// uplink gives the host an interface to the internet.
func (s *suite) uplink() {
	s.must(s.others.AddLink(host.Link{Name: "eth0", Kind: host.KindBridge, Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}}))
	s.must(s.others.AddRoute(host.Route{Dest: netip.MustParsePrefix("0.0.0.0/0"), Device: "eth0", Table: 254}))
}

// goes checks the way of a packet.
func (s *suite) goes(q host.RouteQuery, want host.Hop) {
	s.t.Helper()
	have, err := s.Route(s.t.Context(), q)
	s.must(err)
	if have != want {
		s.t.Errorf("the way of %+v is\n%+v, want\n%+v", q, have, want)
	}
}

func (s *suite) route() {
	ctx := s.t.Context()
	s.uplink()
	s.must(s.SetSysctl("net/ipv4/ip_forward", "1"))
	s.must(s.CreateTAP(ctx, s.tap(1)))
	s.must(s.CreateTAP(ctx, s.tap(2)))
	var (
		internet, own        = addr("198.51.100.9"), addr("192.0.2.2")
		guest, other         = s.layout().Guest(1), s.layout().Guest(2)
		gateway, everybody   = s.layout().Gateway(1), s.layout().Block(1).Addr()
		broadcast, allOnLink = addr("255.255.255.255"), addr("224.0.0.1")
	)
	everybody = everybody.Next().Next().Next()
	for _, test := range []struct {
		query host.RouteQuery
		want  host.Hop
	}{
		{host.RouteQuery{Dest: internet}, host.Hop{Type: host.RouteUnicast, Device: "eth0", Source: own}},
		{host.RouteQuery{Dest: internet, Source: gateway}, host.Hop{Type: host.RouteUnicast, Device: "eth0", Source: gateway}},
		{host.RouteQuery{Dest: guest}, host.Hop{Type: host.RouteUnicast, Device: "zvm1", Source: gateway}},
		{host.RouteQuery{Dest: own}, host.Hop{Type: host.RouteLocal, Source: own}},
		{host.RouteQuery{Dest: everybody}, host.Hop{Type: host.RouteBroadcast, Device: "zvm1", Source: gateway}},
		{host.RouteQuery{Dest: broadcast}, host.Hop{Type: host.RouteBroadcast, Device: "eth0", Source: own}},
		{host.RouteQuery{Dest: allOnLink}, host.Hop{Type: host.RouteMulticast, Device: "eth0", Source: own}},

		{host.RouteQuery{Dest: internet, Source: guest, In: "zvm1"}, host.Hop{Type: host.RouteUnicast, Device: "eth0"}},
		{host.RouteQuery{Dest: other, Source: guest, In: "zvm1"}, host.Hop{Type: host.RouteUnicast, Device: "zvm2"}},
		{host.RouteQuery{Dest: gateway, Source: guest, In: "zvm1"}, host.Hop{Type: host.RouteLocal}},
		{host.RouteQuery{Dest: own, Source: guest, In: "zvm1"}, host.Hop{Type: host.RouteLocal}},
		{host.RouteQuery{Dest: everybody, Source: guest, In: "zvm1"}, host.Hop{Type: host.RouteBroadcast}},
		{host.RouteQuery{Dest: guest, Source: internet, In: "eth0"}, host.Hop{Type: host.RouteUnicast, Device: "zvm1"}},
		{host.RouteQuery{Dest: internet, Source: other, In: "zvm1"}, host.Hop{Type: host.RouteRefused}},
		{host.RouteQuery{Dest: addr("127.0.0.1"), Source: guest, In: "zvm1"}, host.Hop{Type: host.RouteRefused}},
	} {
		s.goes(test.query, test.want)
	}
	s.must(s.SetSysctl("net/ipv4/ip_forward", "0"))
	s.goes(host.RouteQuery{Dest: internet, Source: guest, In: "zvm1"}, host.Hop{Type: host.RouteUnreachable})
	s.goes(host.RouteQuery{Dest: gateway, Source: guest, In: "zvm1"}, host.Hop{Type: host.RouteLocal})
	s.goes(host.RouteQuery{Dest: guest}, host.Hop{Type: host.RouteUnicast, Device: "zvm1", Source: gateway})
}

// routeLess has no route, no device, and an address of another family.
func (s *suite) routeLess() {
	ctx, internet, guest := s.t.Context(), addr("198.51.100.9"), s.layout().Guest(1)
	s.must(s.SetSysctl("net/ipv4/ip_forward", "1"))
	s.must(s.CreateTAP(ctx, s.tap(1)))
	s.goes(host.RouteQuery{Dest: internet}, host.Hop{Type: host.RouteUnreachable})
	s.goes(host.RouteQuery{Dest: internet, Source: guest, In: "zvm1"}, host.Hop{Type: host.RouteUnreachable})
	_, err := s.Route(ctx, host.RouteQuery{Dest: internet, Source: guest, In: "zvm9"})
	s.refused(err, host.ErrNoLink, "zvm9")
	for _, q := range []host.RouteQuery{{Dest: addr("2001:db8::1")}, {Dest: internet, Source: addr("2001:db8::1")}, {}} {
		if hop, err := s.Route(ctx, q); err == nil {
			s.t.Errorf("the way of %+v is %+v", q, hop)
		}
	}
}

package hosttest

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"zwrm/internal/host"
	"zwrm/internal/ipam"
)

func (s *suite) bridge() {
	ctx := s.t.Context()
	const name, alias = "zwrmd0", "zwrm private networking"
	address := netip.MustParsePrefix("10.0.0.1/16")
	check := func(address netip.Prefix) {
		s.t.Helper()
		have := s.link(name)
		if have == nil || have.Kind != host.KindBridge || have.Alias != alias || !have.Up ||
			!slices.Equal(have.Addresses, []netip.Prefix{address}) {
			s.t.Errorf("bridge is %+v", have)
		}
	}
	s.must(s.EnsureBridge(ctx, name, address, alias))
	check(address)
	before := s.link(name)
	s.must(s.EnsureBridge(ctx, name, address, alias))
	if after := s.link(name); !reflect.DeepEqual(before, after) {
		s.t.Errorf("bridge was %+v and is %+v", before, after)
	}
	s.must(s.SetUp(ctx, false, name))
	s.must(s.EnsureBridge(ctx, name, address, alias))
	check(address)
	moved := netip.MustParsePrefix("10.1.0.1/16")
	s.must(s.EnsureBridge(ctx, name, moved, alias))
	check(moved)
	s.must(s.DeleteLinks(ctx, name))
	if s.link(name) != nil {
		s.t.Error("bridge is still there")
	}
	for _, impossible := range []string{"", "a-name-of-16-byte"} {
		if s.EnsureBridge(ctx, impossible, address, alias) == nil {
			s.t.Errorf("bridge %q was made", impossible)
		}
	}
}

func (s *suite) foreignBridge() {
	ctx := s.t.Context()
	for _, foreign := range []host.Link{
		{Name: "zwrmd0", Kind: host.KindBridge},
		{Name: "zwrmd0", Kind: host.KindBridge, Alias: "of somebody else"},
		{Name: "zwrmd0", Kind: host.KindTAP, Alias: "zwrm"},
	} {
		s.must(s.others.AddLink(foreign))
		before := s.link("zwrmd0")
		s.refused(s.EnsureBridge(ctx, "zwrmd0", netip.MustParsePrefix("10.0.0.1/16"), "zwrm"), host.ErrForeign, "zwrmd0")
		if after := s.link("zwrmd0"); !reflect.DeepEqual(before, after) {
			s.t.Errorf("link was %+v and is %+v", before, after)
		}
		s.must(s.DeleteLinks(ctx, "zwrmd0"))
	}
}

func (s *suite) listRoutes() {
	ctx := s.t.Context()
	s.must(s.others.AddLink(host.Link{Name: "eth0", Kind: host.KindBridge, Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}}))
	added := []host.Route{
		{Dest: netip.MustParsePrefix("0.0.0.0/0"), Device: "eth0", Table: 254, Metric: 100},
		{Dest: netip.MustParsePrefix("198.51.100.0/24"), Device: "eth0", Table: 1000},
	}
	for _, r := range added {
		s.must(s.others.AddRoute(r))
	}
	s.must(s.CreateTAP(ctx, s.tap(1)))
	have, err := s.Routes(ctx)
	s.must(err)
	want := append(added,
		host.Route{Dest: netip.MustParsePrefix("192.0.2.0/24"), Device: "eth0", Table: 254},
		host.Route{Dest: netip.MustParsePrefix("172.16.0.4/30"), Device: "zvm1", Table: 254},
	)
	byText := func(a, b host.Route) int { return a.Dest.Addr().Compare(b.Dest.Addr()) }
	slices.SortFunc(have, byText)
	slices.SortFunc(want, byText)
	if !slices.Equal(have, want) {
		s.t.Errorf("routes are\n%v, want\n%v", have, want)
	}
}

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

func (s *suite) forget() {
	ctx := s.t.Context()
	guest, second, other := s.layout().Guest(1), s.layout().Guest(2), s.layout().Guest(3)
	internet, external := addr("192.0.2.1"), addr("203.0.113.7")
	for slot := range ipam.Slot(4) {
		s.must(s.CreateTAP(ctx, s.tap(slot)))
	}
	stays := []Flow{
		{Src: other, Dst: internet, ReplySrc: internet, ReplyDst: external},
		{Src: internet, Dst: external, ReplySrc: external, ReplyDst: internet},
	}
	goes := []Flow{
		{Src: guest, Dst: internet, ReplySrc: internet, ReplyDst: external}, // masqueraded
		{Src: other, Dst: guest, ReplySrc: guest, ReplyDst: other},
		{Src: internet, Dst: external, ReplySrc: second, ReplyDst: internet}, // a published port
		{Src: second, Dst: other, ReplySrc: other, ReplyDst: second},
	}
	for _, flow := range append(stays, goes...) {
		s.must(s.others.AddFlow(flow))
	}
	s.must(s.others.AddNeighbour("zvm1", guest))
	s.must(s.others.AddNeighbour("zvm2", second))
	s.must(s.others.AddNeighbour("zvm3", other))
	s.must(s.Forget(ctx, guest, second))
	s.remembers(stays[0].String(), stays[1].String(), "neighbour "+other.String())
	s.must(s.Forget(ctx, guest, second)) // nothing is left to forget
	s.must(s.Forget(ctx))
}

func (s *suite) forgetParallel() {
	ctx, internet, external := s.t.Context(), addr("192.0.2.1"), addr("203.0.113.7")
	flow := func(slot ipam.Slot) Flow {
		return Flow{Src: s.layout().Guest(slot), Dst: internet, ReplySrc: internet, ReplyDst: external}
	}
	const many = 50
	for slot := range ipam.Slot(many + 1) {
		s.must(s.others.AddFlow(flow(slot)))
	}
	var work sync.WaitGroup
	for slot := range ipam.Slot(many) {
		work.Go(func() {
			if err := s.Forget(ctx, s.layout().Guest(slot)); err != nil {
				s.t.Error(err)
			}
			left, err := s.others.Remembered()
			if err != nil || slices.Contains(left, flow(slot).String()) {
				s.t.Errorf("%s is left (%v)", flow(slot), err)
			}
		})
	}
	work.Wait()
	s.remembers(flow(many).String())
}

func (s *suite) forgetBetween() {
	one, two := s.layout().Guest(1), s.layout().Guest(2)
	internet, external := addr("192.0.2.1"), addr("203.0.113.7")
	stays := []Flow{
		{Src: one, Dst: internet, ReplySrc: internet, ReplyDst: external},
		{Src: internet, Dst: external, ReplySrc: one, ReplyDst: internet},
	}
	for _, flow := range append(stays, Flow{Src: one, Dst: two, ReplySrc: two, ReplyDst: one}) {
		s.must(s.others.AddFlow(flow))
	}
	s.must(s.ForgetBetween(s.t.Context(), s.layout().Subnet()))
	s.remembers(stays[0].String(), stays[1].String())
}

func (s *suite) forgetOthers() {
	guest, gateway, nobody := s.layout().Guest(1), s.layout().Gateway(1), s.layout().Guest(2)
	internet, external := addr("192.0.2.1"), addr("203.0.113.7")
	stays := []Flow{
		{Src: guest, Dst: internet, ReplySrc: internet, ReplyDst: external},
		{Src: guest, Dst: gateway, ReplySrc: gateway, ReplyDst: guest},
		{Src: internet, Dst: external, ReplySrc: external, ReplyDst: internet},
	}
	goes := []Flow{
		{Src: internet, Dst: nobody, ReplySrc: nobody, ReplyDst: internet}, // by the default route
		{Src: guest, Dst: nobody, ReplySrc: nobody, ReplyDst: external},    // the same, masqueraded
	}
	for _, flow := range append(stays, goes...) {
		s.must(s.others.AddFlow(flow))
	}
	s.must(s.ForgetOthers(s.t.Context(), s.layout().Subnet(), guest))
	s.remembers(stays[0].String(), stays[1].String(), stays[2].String())
}

// remembers checks which connections and neighbours the kernel knows.
func (s *suite) remembers(want ...string) {
	s.t.Helper()
	have, err := s.others.Remembered()
	s.must(err)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		s.t.Errorf("the kernel remembers\n%q, want\n%q", have, want)
	}
}

func (s *suite) sysctl() {
	const name = "net/ipv4/ip_forward"
	for _, value := range []string{"1", "0", "1"} {
		s.must(s.SetSysctl(name, value))
		have, err := s.Sysctl(name)
		s.must(err)
		if have != value {
			s.t.Errorf("%s is %q, want %q", name, have, value)
		}
	}
	for _, missing := range []string{"net/ipv4/no_such_setting", "net/ipv4/conf/zvm9/rp_filter", "../../etc/hostname", "/etc/hostname", ""} {
		_, err := s.Sysctl(missing)
		s.refused(err, fs.ErrNotExist, missing)
		s.refused(s.SetSysctl(missing, "1"), fs.ErrNotExist, missing)
	}
	if s.SetSysctl(name, "no number") == nil {
		s.t.Errorf("%s took what is no number", name)
	}
	if have, _ := s.Sysctl(name); have != "1" {
		s.t.Errorf("%s is %q after a refused change", name, have)
	}
}

func (s *suite) ping() {
	s.must(s.CreateTAP(s.t.Context(), s.tap(1)))
	s.must(s.Ping(s.t.Context(), s.layout().Gateway(1)))
	why := errors.New("nobody waits for this guest any more")
	for _, after := range []time.Duration{0, 250 * time.Millisecond} {
		ctx, cancel := context.WithTimeoutCause(s.t.Context(), after, why)
		s.refused(s.Ping(ctx, s.layout().Guest(1)), why, s.layout().Guest(1).String())
		cancel()
	}
}

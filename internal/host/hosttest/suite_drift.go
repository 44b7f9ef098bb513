package hosttest

import (
	"net/netip"

	"zwrm/internal/host"
	"zwrm/internal/model"
)

// unrouted has somebody take away the routes of addresses.
func (s *suite) unrouted() {
	ctx, tap, bridge := s.t.Context(), s.tap(3), netip.MustParsePrefix("10.0.0.1/16")
	s.must(s.CreateTAP(ctx, tap))
	s.must(s.EnsureBridge(ctx, "zwrmd0", bridge, "zwrm"))
	for _, dest := range []netip.Prefix{tap.Address.Masked(), netip.PrefixFrom(tap.Address.Addr(), 32)} {
		s.must(s.others.RemoveRoute(tap.Name, dest))
		want := made(tap, model.GroupUnassigned)
		want.Unrouted = []netip.Prefix{dest}
		s.is(want)
		tap.Reroute = true
		s.must(s.CreateTAP(ctx, tap))
		s.is(made(tap, model.GroupUnassigned))
	}
	s.must(s.others.RemoveRoute("zwrmd0", bridge.Masked()))
	if have := s.link("zwrmd0"); have == nil || len(have.Unrouted) != 1 || have.Unrouted[0] != bridge.Masked() {
		s.t.Errorf("bridge is %+v", have)
	}
	s.must(s.EnsureBridge(ctx, "zwrmd0", bridge, "zwrm"))
	if have := s.link("zwrmd0"); have == nil || len(have.Unrouted) != 0 {
		s.t.Errorf("mended bridge is %+v", have)
	}
	s.must(s.others.RemoveRoute(tap.Name, tap.Address.Masked()))
	s.must(s.SetUp(ctx, false, tap.Name))
	want := made(tap, model.GroupUnassigned)
	want.Up = false // and so it has no routes
	s.is(want)
}

func (s *suite) linksNamed() {
	ctx := s.t.Context()
	s.must(s.CreateTAP(ctx, s.tap(3)))
	s.must(s.CreateTAP(ctx, s.tap(4)))
	s.must(s.CreateTAP(ctx, s.tap(5)))
	s.must(s.others.RemoveRoute("zvm3", s.tap(3).Address.Masked()))
	for _, names := range [][]string{{"zvm3"}, {"zvm3", "zvm9", "zvm5"}, {"zvm9"}, nil} {
		links, err := s.LinksNamed(ctx, names...)
		s.must(err)
		want := map[string]bool{}
		for _, name := range names {
			want[name] = name != "zvm9"
		}
		for _, l := range links {
			if !want[l.Name] {
				s.t.Errorf("%q: there is %q", names, l.Name)
			}
			delete(want, l.Name)
			all := s.link(l.Name)
			if len(l.Addresses) != 1 || l.Addresses[0] != all.Addresses[0] || len(l.Unrouted) != len(all.Unrouted) || l.Group != all.Group || l.Index != all.Index {
				s.t.Errorf("%q is %+v, and of all %+v", l.Name, l, all)
			}
		}
		for name, lacks := range want {
			if lacks {
				s.t.Errorf("%q: %q is not there", names, name)
			}
		}
	}
}

func (s *suite) rename() {
	ctx := s.t.Context()
	s.must(s.CreateTAP(ctx, s.tap(3)))
	s.must(s.Rename(ctx, "zvm3", "away"))
	if s.link("zvm3") != nil || s.link("away") == nil {
		s.t.Error("the link has its old name")
	}
	s.must(s.Rename(ctx, "away", "zvm3"))
	s.is(made(s.tap(3), model.GroupUnassigned))
	s.must(s.CreateTAP(ctx, s.tap(4)))
	if s.Rename(ctx, "zvm4", "zvm3") == nil {
		s.t.Error("two links have one name")
	}
	s.refused(s.Rename(ctx, "zvm9", "zvm8"), host.ErrNoLink, "zvm9")
	s.must(s.others.AddLink(host.Link{Name: "other", Kind: host.KindTAP}))
	s.refused(s.Rename(ctx, "other", "zvm8"), host.ErrForeign, "other")
}

package hosttest

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"

	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

func (s *suite) newTAP() {
	tap := s.tap(3)
	s.must(s.CreateTAP(s.t.Context(), tap))
	s.is(made(tap, model.GroupUnassigned))
	for _, setting := range host.TAPSettings() {
		value, err := s.Sysctl(setting.Sysctl(tap.Name))
		s.must(err)
		if value != fmt.Sprint(setting.Value) {
			s.t.Errorf("%s = %s, want %d", setting.Sysctl(tap.Name), value, setting.Value)
		}
	}
}

func (s *suite) openedTAP() {
	tap := s.tap(3)
	s.must(s.CreateTAP(s.t.Context(), tap))
	vmm, err := s.others.OpenTAP(tap.Name)
	s.must(err)
	if !s.link(tap.Name).Opened {
		s.t.Error("not opened, although a VMM has it")
	}
	s.must(s.SetUp(s.t.Context(), false, tap.Name))
	if !s.link(tap.Name).Opened {
		s.t.Error("not opened while it is down")
	}
	s.must(vmm.Close())
	if s.link(tap.Name).Opened {
		s.t.Error("opened, although no VMM has it")
	}
}

func (s *suite) createAgain() {
	tap := s.tap(3)
	s.must(s.CreateTAP(s.t.Context(), tap))
	s.must(s.SetGroup(s.t.Context(), model.AppID(7).Group(), tap.Name))
	before := s.link(tap.Name)
	s.must(s.CreateTAP(s.t.Context(), tap))
	if after := s.link(tap.Name); !reflect.DeepEqual(before, after) {
		s.t.Errorf("link was %+v and is %+v", before, after)
	}
}

func (s *suite) halfMade() {
	tap, group := s.tap(4), model.AppID(7).Group()
	other := netip.MustParsePrefix("192.0.2.1/24")
	tests := []struct {
		name string
		link host.Link
	}{
		{"bare", host.Link{}},
		{"wrong MTU", host.Link{MAC: tap.MAC, MTU: 9000, Up: true, Addresses: []netip.Prefix{tap.Address}}},
		{"wrong MAC", host.Link{MAC: ipam.MAC{2, 0, 0, 0, 0, 9}, MTU: tap.MTU, Up: true, Addresses: []netip.Prefix{tap.Address}}},
		{"down", host.Link{MAC: tap.MAC, MTU: tap.MTU, Addresses: []netip.Prefix{tap.Address}}},
		{"no address", host.Link{MAC: tap.MAC, MTU: tap.MTU, Up: true}},
		{"another address", host.Link{MAC: tap.MAC, MTU: tap.MTU, Up: true, Addresses: []netip.Prefix{other}}},
		{"one address too many", host.Link{MAC: tap.MAC, MTU: tap.MTU, Up: true, Addresses: []netip.Prefix{tap.Address, other}}},
		{"the guest's address first", host.Link{MAC: tap.MAC, MTU: tap.MTU, Up: true, Addresses: []netip.Prefix{
			netip.PrefixFrom(s.layout().Guest(4), 30), tap.Address,
		}}},
	}
	for _, test := range tests {
		test.link.Name, test.link.Kind, test.link.Group = tap.Name, host.KindTAP, group
		s.must(s.others.AddLink(test.link))
		if err := s.CreateTAP(s.t.Context(), tap); err != nil {
			s.t.Errorf("%s: %v", test.name, err)
		}
		s.is(made(tap, group))
		s.must(s.DeleteLinks(s.t.Context(), tap.Name))
	}
}

// anybodys has a TAP that an earlier ZWRM made, which gave it no owner.
func (s *suite) anybodys() {
	tap, group := s.tap(4), model.AppID(7).Group()
	s.must(s.others.AddLink(host.Link{Name: tap.Name, Kind: host.KindTAP, Group: group}))
	if wrong := s.link(tap.Name).Hardening.Wrong; !slices.Contains(wrong, host.NotOwned) {
		s.t.Errorf("of the link is wrong: %q", wrong)
	}
	s.must(s.CreateTAP(s.t.Context(), tap))
	s.is(made(tap, group))
}

// smallMTU has a TAP that is too small for IPv6 and grows out of that.
func (s *suite) smallMTU() {
	tap := s.tap(3)
	for _, mtu := range []int{576, 1280, 68} {
		tap.MTU = mtu
		s.must(s.CreateTAP(s.t.Context(), tap))
		s.is(made(tap, model.GroupUnassigned))
	}
}

func (s *suite) foreignTAP() {
	tap := s.tap(5)
	for _, foreign := range []host.Link{
		{Name: tap.Name, Kind: host.KindBridge, MTU: 1400, MAC: ipam.MAC{2, 0, 0, 0, 0, 1}},
		{Name: tap.Name, Kind: host.KindBridge, MTU: 1400, MAC: ipam.MAC{2, 0, 0, 0, 0, 1}, Group: model.AppID(7).Group()},
		{Name: tap.Name, Kind: host.KindTAP, MTU: 1400, MAC: ipam.MAC{2, 0, 0, 0, 0, 1}},
		{Name: tap.Name, Kind: host.KindTAP, MTU: 1400, MAC: ipam.MAC{2, 0, 0, 0, 0, 1}, Group: 0x5b000000},
	} {
		s.must(s.others.AddLink(foreign))
		before := s.link(tap.Name)
		s.refused(s.CreateTAP(s.t.Context(), tap), host.ErrForeign, tap.Name)
		s.refused(s.DeleteLinks(s.t.Context(), tap.Name), host.ErrForeign, tap.Name)
		if after := s.link(tap.Name); !reflect.DeepEqual(before, after) {
			s.t.Errorf("link was %+v and is %+v", before, after)
		}
		s.others.RemoveLink(tap.Name)
	}
}

func (s *suite) impossible() {
	tests := []struct {
		name   string
		change func(*host.TAP)
	}{
		{"no name", func(t *host.TAP) { t.Name = "" }},
		{"name of 16 bytes", func(t *host.TAP) { t.Name = "zvm1234567890123" }},
		{"name that is a pattern", func(t *host.TAP) { t.Name = "zvm%d" }},
		{"name with a slash", func(t *host.TAP) { t.Name = "zvm/3" }},
		{"name with a space", func(t *host.TAP) { t.Name = "zvm 3" }},
		{"MTU 67", func(t *host.TAP) { t.MTU = 67 }},
		{"MTU 65522", func(t *host.TAP) { t.MTU = 65522 }},
		{"multicast MAC", func(t *host.TAP) { t.MAC = ipam.MAC{1, 0, 0x5e, 0, 0, 1} }},
		{"no MAC", func(t *host.TAP) { t.MAC = ipam.MAC{} }},
		{"no address", func(t *host.TAP) { t.Address = netip.Prefix{} }},
		{"IPv6 address", func(t *host.TAP) { t.Address = netip.MustParsePrefix("2001:db8::1/126") }},
		{"address that the kernel ignores", func(t *host.TAP) { t.Address = netip.MustParsePrefix("0.0.0.0/30") }},
	}
	before, err := s.Links(s.t.Context())
	s.must(err)
	for _, test := range tests {
		tap := s.tap(6)
		test.change(&tap)
		if err := s.CreateTAP(s.t.Context(), tap); err == nil {
			s.t.Errorf("%s: no error", test.name)
		} else if !strings.Contains(err.Error(), fmt.Sprintf("create TAP %q: ", tap.Name)) {
			s.t.Errorf("%s: error does not name the TAP: %v", test.name, err)
		}
		after, err := s.Links(s.t.Context())
		s.must(err)
		if !reflect.DeepEqual(before, after) {
			s.t.Errorf("%s: links were %+v and are %+v", test.name, before, after)
		}
	}
}

func (s *suite) givenUp() {
	ctx, cancel := context.WithCancel(s.t.Context())
	cancel()
	s.refused(s.CreateTAP(ctx, s.tap(3)), context.Canceled, "zvm3")
	if s.link("zvm3") != nil {
		s.t.Error("the link was made")
	}
}

func (s *suite) createMany() {
	ctx := s.t.Context()
	var taps []host.TAP
	for slot := range ipam.Slot(40) { // more than are made together
		taps = append(taps, s.tap(slot))
	}
	s.must(s.CreateTAP(ctx, taps[7]))
	s.must(s.DeleteLinks(ctx, taps[7].Name))
	s.must(s.CreateTAP(ctx, taps[9]))
	s.must(s.SetUp(ctx, false, taps[9].Name))
	s.must(s.CreateTAP(ctx, taps...))
	for _, tap := range taps {
		s.is(made(tap, model.GroupUnassigned))
	}
	s.must(s.CreateTAP(ctx))
}

// createManyWithBad: those before the one that fails are made, those behind are not.
func (s *suite) createManyWithBad() {
	s.must(s.others.AddLink(host.Link{Name: "zvm20", Kind: host.KindTAP, MTU: 1400, MAC: ipam.MAC{2, 0, 0, 0, 0, 1}}))
	var taps []host.TAP
	for slot := range ipam.Slot(30) {
		taps = append(taps, s.tap(slot))
	}
	s.refused(s.CreateTAP(s.t.Context(), taps...), host.ErrForeign, `"zvm20"`)
	for i, tap := range taps {
		switch {
		case i < 20:
			s.is(made(tap, model.GroupUnassigned))
		case i > 20 && s.link(tap.Name) != nil:
			s.t.Errorf("%s was made behind one that failed", tap.Name)
		}
	}
}

func (s *suite) change() {
	ctx, group := s.t.Context(), model.AppID(7).Group()
	var names []string
	for slot := range ipam.Slot(100) { // more than one batch
		s.must(s.CreateTAP(ctx, s.tap(slot)))
		names = append(names, slot.TAP())
	}
	s.must(s.SetGroup(ctx, group, names[1:]...))
	s.must(s.SetUp(ctx, false, names[1:]...))
	for slot := ipam.Slot(1); slot < 100; slot++ {
		want := made(s.tap(slot), group)
		want.Up = false
		s.is(want)
	}
	s.is(made(s.tap(0), model.GroupUnassigned))
	s.must(s.SetUp(ctx, true, names[1]))
	s.is(made(s.tap(1), group))
	s.must(s.SetGroup(ctx, group))
	s.must(s.SetUp(ctx, true))
}

func (s *suite) changeMissing() {
	ctx, group := s.t.Context(), model.AppID(7).Group()
	s.must(s.CreateTAP(ctx, s.tap(1)))
	s.must(s.CreateTAP(ctx, s.tap(3)))
	s.refused(s.SetGroup(ctx, group, "zvm1", "zvm2", "zvm3"), host.ErrNoLink, `"zvm2"`)
	s.refused(s.SetUp(ctx, false, "zvm1", "zvm2", "zvm3"), host.ErrNoLink, `"zvm2"`)
	for _, slot := range []ipam.Slot{1, 3} { // the others are done
		want := made(s.tap(slot), group)
		want.Up = false
		s.is(want)
	}
}

func (s *suite) deleteLinks() {
	ctx := s.t.Context()
	for slot := range ipam.Slot(3) {
		s.must(s.CreateTAP(ctx, s.tap(slot)))
	}
	s.must(s.DeleteLinks(ctx, "zvm0", "zvm99", "zvm2", "zvm0"))
	for _, name := range []string{"zvm0", "zvm2"} {
		if s.link(name) != nil {
			s.t.Errorf("%s is still there", name)
		}
	}
	s.is(made(s.tap(1), model.GroupUnassigned))
	s.must(s.DeleteLinks(ctx))
}

func (s *suite) parallel() {
	ctx := s.t.Context()
	const taps = 200
	var work sync.WaitGroup
	for slot := range ipam.Slot(taps) {
		work.Go(func() {
			if err := s.CreateTAP(ctx, s.tap(slot)); err != nil {
				s.t.Error(err)
			}
			if slot%2 == 1 {
				if err := s.DeleteLinks(ctx, slot.TAP()); err != nil {
					s.t.Error(err)
				}
			}
		})
	}
	for range 10 {
		work.Go(func() {
			if _, err := s.Links(ctx); err != nil {
				s.t.Error(err)
			}
		})
	}
	work.Wait()
	links, err := s.Links(ctx)
	s.must(err)
	links = slices.DeleteFunc(links, func(l host.Link) bool { return l.Kind != host.KindTAP })
	if len(links) != taps/2 {
		s.t.Errorf("%d links are there, want %d", len(links), taps/2)
	}
	for slot := ipam.Slot(0); slot < taps; slot += 2 {
		s.is(made(s.tap(slot), model.GroupUnassigned))
	}
}

func (s *suite) drift() {
	ctx, tap := s.t.Context(), s.tap(3)
	s.must(s.CreateTAP(ctx, tap))
	want := made(tap, model.GroupUnassigned)
	s.must(s.SetSysctl("net/ipv4/conf/zvm3/rp_filter", "0"))
	s.must(s.SetSysctl("net/ipv4/conf/zvm3/proxy_arp", "1"))
	s.must(s.SetSysctl("net/ipv6/conf/zvm3/disable_ipv6", "0"))
	want.Hardening.Wrong = []string{
		"net.ipv4.conf.zvm3.rp_filter = 0, not 1",
		"net.ipv4.conf.zvm3.proxy_arp = 1, not 0",
		"net.ipv6.conf.zvm3.disable_ipv6 = 0, not 1",
	}
	s.is(want)
	s.weakened(want)
	s.must(s.CreateTAP(ctx, tap))
	want.Hardening = host.Hardening{}
	s.is(want)
	s.weakened()
}

func (s *suite) forwardingOff() {
	s.must(s.SetSysctl("net/ipv4/ip_forward", "1"))
	s.must(s.CreateTAP(s.t.Context(), s.tap(3)))
	s.must(s.SetSysctl("net/ipv4/ip_forward", "0"))
	want := made(s.tap(3), model.GroupUnassigned)
	want.Hardening.Wrong = []string{"net.ipv4.conf.zvm3.forwarding = 0, not 1"}
	s.is(want)
	s.weakened(want)
}

// weakened checks which links are listed as having other settings than a TAP.
func (s *suite) weakened(want ...host.Link) {
	s.t.Helper()
	links, err := s.Weakened(s.t.Context())
	s.must(err)
	same := func(have, want host.Link) bool {
		return have.Name == want.Name && slices.Equal(have.Hardening.Wrong, want.Hardening.Wrong)
	}
	if !slices.EqualFunc(links, want, same) {
		s.t.Errorf("weakened are %+v, want %+v", links, want)
	}
}

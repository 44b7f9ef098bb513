package hosttest

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// Host is what Suite tests: the methods of host.Kernel.
type Host interface {
	CreateTAP(ctx context.Context, taps ...host.TAP) error
	Recycle(ctx context.Context, alias string, names ...string) ([]string, error)
	SetGroup(ctx context.Context, group model.Group, names ...string) error
	SetUp(ctx context.Context, up bool, names ...string) error
	DeleteLinks(ctx context.Context, names ...string) error
	Links(ctx context.Context) ([]host.Link, error)
	Devices(ctx context.Context) ([]host.Link, error)
	Weakened(ctx context.Context) ([]host.Link, error)
	LinksNamed(ctx context.Context, names ...string) ([]host.Link, error)
	Rename(ctx context.Context, from, to string) error
	Routes(ctx context.Context) ([]host.Route, error)
	Route(ctx context.Context, q host.RouteQuery) (host.Hop, error)
	EnsureBridge(ctx context.Context, name string, address netip.Prefix, alias string) error
	Forget(ctx context.Context, guests ...netip.Addr) error
	ForgetBetween(ctx context.Context, subnet netip.Prefix) error
	ForgetOthers(ctx context.Context, subnet netip.Prefix, guests ...netip.Addr) error
	Sysctl(name string) (string, error)
	SetSysctl(name, value string) error
	Ping(ctx context.Context, address netip.Addr) error
	Inject(ctx context.Context, device string, frame []byte) error
	Send(ctx context.Context, packet []byte) error
}

// Others is what everybody else does to the same kernel, past the Host.
type Others interface {
	// AddLink makes a link of kind tap or bridge.
	AddLink(l host.Link) error
	// RemoveLink deletes a link and reports whether there was one.
	RemoveLink(name string) bool
	// OpenTAP opens a TAP as a VMM does, until it is closed.
	OpenTAP(name string) (io.Closer, error)
	AddRoute(r host.Route) error
	// RemoveRoute deletes a route that the kernel made for an address of a link.
	RemoveRoute(device string, dest netip.Prefix) error
	AddFlow(f Flow) error
	AddNeighbour(device string, address netip.Addr) error
	// Remembered returns connections and neighbour entries as Fake.Remembered does.
	Remembered() ([]string, error)
}

// The two implementations that pass the suite, and the fake's other side.
var (
	_ Host   = (*host.Kernel)(nil)
	_ Host   = (*Fake)(nil)
	_ Others = (*Fake)(nil)
)

// Suite tests what host.Kernel promises. Each call of open gives a Host without
// links of ours, in its first state, and the other hand on it.
func Suite(t *testing.T, open func(t *testing.T) (Host, Others)) {
	tests := []struct {
		name string
		run  func(s *suite)
	}{
		{"a new TAP is as asked for", (*suite).newTAP},
		{"a TAP shows that it is opened", (*suite).openedTAP},
		{"CreateTAP again changes nothing", (*suite).createAgain},
		{"CreateTAP completes a half-made TAP", (*suite).halfMade},
		{"CreateTAP makes a TAP that anybody can open root's", (*suite).anybodys},
		{"CreateTAP with an MTU too small for IPv6", (*suite).smallMTU},
		{"CreateTAP leaves foreign links alone", (*suite).foreignTAP},
		{"CreateTAP leaves nothing of what cannot be", (*suite).impossible},
		{"CreateTAP does nothing once given up", (*suite).givenUp},
		{"CreateTAP makes many", (*suite).createMany},
		{"CreateTAP ends behind one that fails", (*suite).createManyWithBad},
		{"SetGroup and SetUp", (*suite).change},
		{"SetGroup and SetUp name the missing", (*suite).changeMissing},
		{"a spare TAP is known until it is handed out", (*suite).spare},
		{"CreateTAP makes a fresh one anew", (*suite).fresh},
		{"Recycle", (*suite).recycle},
		{"DeleteLinks deletes ours only", (*suite).deleteLinks},
		{"200 TAPs at the same time", (*suite).parallel},
		{"a drift of settings shows and is mended", (*suite).drift},
		{"forwarding switched off shows", (*suite).forwardingOff},
		{"a missing route shows and is mended", (*suite).unrouted},
		{"LinksNamed", (*suite).linksNamed},
		{"Rename", (*suite).rename},
		{"EnsureBridge", (*suite).bridge},
		{"EnsureBridge leaves foreign links alone", (*suite).foreignBridge},
		{"Routes", (*suite).listRoutes},
		{"Route", (*suite).route},
		{"Route without what it takes", (*suite).routeLess},
		{"Forget", (*suite).forget},
		{"Forget at the same time", (*suite).forgetParallel},
		{"ForgetBetween", (*suite).forgetBetween},
		{"ForgetOthers", (*suite).forgetOthers},
		{"Sysctl", (*suite).sysctl},
		{"Ping", (*suite).ping},
		{"Inject refuses", (*suite).inject},
		{"Send", (*suite).send},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			kernel, others := open(t)
			test.run(&suite{t: t, Host: kernel, others: others})
		})
	}
}

// suite is one test of the suite at work.
type suite struct {
	Host
	t      *testing.T
	others Others
}

// layout is the default one.
func (s *suite) layout() ipam.Layout {
	layout, err := ipam.NewLayout(netip.MustParsePrefix("172.16.0.0/16"))
	s.must(err)
	return layout
}

// tap returns what a slot's TAP is.
func (s *suite) tap(slot ipam.Slot) host.TAP {
	return host.TAP{
		Name: slot.TAP(), MAC: ipam.GatewayMAC(), MTU: 1450,
		Address: netip.PrefixFrom(s.layout().Gateway(slot), 30),
	}
}

// made returns the link that CreateTAP makes of a TAP.
func made(tap host.TAP, group model.Group) host.Link {
	return host.Link{
		Name: tap.Name, Kind: host.KindTAP, Group: group, MAC: tap.MAC, MTU: tap.MTU, Up: true,
		Addresses: []netip.Prefix{tap.Address},
	}
}

func (s *suite) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// refused checks that an error wraps the wanted one and names the object.
func (s *suite) refused(err, want error, name string) {
	s.t.Helper()
	if !errors.Is(err, want) || !strings.Contains(err.Error(), name) {
		s.t.Errorf("error is %v, want one that wraps %q and names %q", err, want, name)
	}
}

// link returns the link of a name, nil if there is none.
func (s *suite) link(name string) *host.Link {
	s.t.Helper()
	links, err := s.Links(s.t.Context())
	s.must(err)
	for _, l := range links {
		if l.Name == name {
			return &l
		}
	}
	return nil
}

// is checks that there is a link exactly like this, whatever its index.
func (s *suite) is(want host.Link) {
	s.t.Helper()
	have := s.link(want.Name)
	if have == nil {
		s.t.Errorf("there is no link %q", want.Name)
		return
	}
	have.Index = want.Index
	if have.Name != want.Name || have.Kind != want.Kind || have.Group != want.Group || have.MAC != want.MAC ||
		have.MTU != want.MTU || have.Up != want.Up || have.Alias != want.Alias ||
		!slices.Equal(have.Addresses, want.Addresses) || !slices.Equal(have.Hardening.Wrong, want.Hardening.Wrong) ||
		!slices.Equal(have.Unrouted, want.Unrouted) {
		s.t.Errorf("link is\n%+v, want\n%+v", *have, want)
	}
}

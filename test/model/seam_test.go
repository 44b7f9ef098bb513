package model_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"sync"

	"pgregory.net/rapid"

	"zwrm/internal/effect"
	"zwrm/internal/firewall"
	"zwrm/internal/host"
	"zwrm/internal/model"
	"zwrm/internal/reconcile"
)

// fate is what happens to an operation on its way.
type fate string

const (
	well   fate = "well"   // nothing
	fault  fate = "fault"  // one side effect fails
	outage fate = "outage" // several in a row do
	crash  fate = "crash"  // zwrmd dies before or behind one
	leave  fate = "leave"  // the one who asked goes away
)

var errBroken = errors.New("broken on purpose")

// seam is what every side effect passes. It strikes at the one with a certain
// number.
type seam struct {
	mu     sync.Mutex
	fate   fate
	from   int // effects that come before it
	until  int // and the first that works again
	passed int
	op     string // that was struck; empty: none
	left   func() // has the one who asked go away
}

// arm draws the fate of the next operation.
func (s *seam) arm(t *rapid.T, fates ...fate) fate {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed, s.op = 0, ""
	s.fate = rapid.SampledFrom(fates).Draw(t, "fate")
	if s.fate != well {
		s.from = rapid.IntRange(0, 24).Draw(t, "effects before")
	}
	switch s.fate {
	case outage:
		s.until = s.from + rapid.IntRange(2, 12).Draw(t, "effects that fail")
	case crash:
		s.until = math.MaxInt
	default:
		s.until = s.from + 1
	}
	return s.fate
}

// kill has nothing take effect any more.
func (s *seam) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fate, s.from, s.until = crash, 0, math.MaxInt
}

// disarm lets everything pass, and returns what was struck.
func (s *seam) disarm() (op string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fate = well
	return s.op
}

// pass is asked before a side effect; its error is that of the effect, which then
// does not happen.
func (s *seam) pass(op string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meet("before " + op)
}

// behind is told that a side effect has happened. Only a crash can strike there.
func (s *seam) behind(op string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fate == crash {
		_ = s.meet("behind " + op)
	}
}

func (s *seam) meet(op string) error {
	if s.fate == well {
		return nil
	}
	n := s.passed
	s.passed++
	if n == s.from {
		s.op = op
		if s.fate == leave {
			s.left()
		}
	}
	if n < s.from || n >= s.until || s.fate == leave {
		return nil
	}
	return fmt.Errorf("%s: %w", op, errBroken)
}

// Before is effect.Hook's.
func (s *seam) Before(op effect.Op) error { return s.pass(string(op)) }

// After is effect.Hook's.
func (s *seam) After(op effect.Op) { s.behind(string(op)) }

func (s *seam) do(op string, effect func() error) error {
	if err := s.pass(op); err != nil {
		return err
	}
	err := effect()
	s.behind(op)
	return err
}

// over returns the kernel behind the seam.
func (s *seam) over(k reconcile.Kernel) reconcile.Kernel {
	return reconcile.Kernel{Links: links{k.Links, s}, Settings: settings{k.Settings, s}, Firewall: rules{k.Firewall, s}}
}

type kernelLinks = reconcile.Links

type links struct {
	kernelLinks
	seam *seam
}

func (l links) Links(ctx context.Context) (all []host.Link, err error) {
	err = l.seam.do("list links", func() error { all, err = l.kernelLinks.Links(ctx); return err })
	return all, err
}

func (l links) CreateTAP(ctx context.Context, taps ...host.TAP) error {
	return l.seam.do(fmt.Sprintf("create %d TAPs", len(taps)), func() error { return l.kernelLinks.CreateTAP(ctx, taps...) })
}

func (l links) Recycle(ctx context.Context, alias string, names ...string) (done []string, err error) {
	err = l.seam.do(fmt.Sprintf("recycle %v", names), func() error { done, err = l.kernelLinks.Recycle(ctx, alias, names...); return err })
	return done, err
}

func (l links) SetGroup(ctx context.Context, group model.Group, names ...string) error {
	return l.seam.do(fmt.Sprintf("group %s %v", group, names), func() error { return l.kernelLinks.SetGroup(ctx, group, names...) })
}

func (l links) SetUp(ctx context.Context, up bool, names ...string) error {
	return l.seam.do(fmt.Sprintf("up %t %v", up, names), func() error { return l.kernelLinks.SetUp(ctx, up, names...) })
}

func (l links) DeleteLinks(ctx context.Context, names ...string) error {
	return l.seam.do(fmt.Sprintf("delete %v", names), func() error { return l.kernelLinks.DeleteLinks(ctx, names...) })
}

type settings struct {
	reconcile.Settings
	seam *seam
}

func (s settings) EnsureBridge(ctx context.Context, name string, address netip.Prefix, alias string) error {
	return s.seam.do("bridge "+name, func() error { return s.Settings.EnsureBridge(ctx, name, address, alias) })
}

func (s settings) SetSysctl(name, value string) error {
	return s.seam.do("sysctl "+name, func() error { return s.Settings.SetSysctl(name, value) })
}

func (s settings) Forget(ctx context.Context, guests ...netip.Addr) error {
	return s.seam.do(fmt.Sprintf("forget %v", guests), func() error { return s.Settings.Forget(ctx, guests...) })
}

func (s settings) ForgetOthers(ctx context.Context, subnet netip.Prefix, guests ...netip.Addr) error {
	return s.seam.do("forget others", func() error { return s.Settings.ForgetOthers(ctx, subnet, guests...) })
}

func (s settings) ForgetBetween(ctx context.Context, subnet netip.Prefix) error {
	return s.seam.do("forget between", func() error { return s.Settings.ForgetBetween(ctx, subnet) })
}

type rules struct {
	reconcile.Firewall
	seam *seam
}

func (r rules) Apply(ctx context.Context, want firewall.Ruleset) error {
	return r.seam.do("apply rules", func() error { return r.Firewall.Apply(ctx, want) })
}

func (r rules) AddApps(ctx context.Context, apps ...firewall.App) error {
	return r.seam.do(fmt.Sprintf("add apps %v", apps), func() error { return r.Firewall.AddApps(ctx, apps...) })
}

func (r rules) RemoveApps(ctx context.Context, apps ...firewall.App) error {
	return r.seam.do(fmt.Sprintf("remove apps %v", apps), func() error { return r.Firewall.RemoveApps(ctx, apps...) })
}

func (r rules) Diff(ctx context.Context, want firewall.Ruleset) (found []firewall.Difference, err error) {
	err = r.seam.do("compare rules", func() error { found, err = r.Firewall.Diff(ctx, want); return err })
	return found, err
}

func (r rules) Remove(ctx context.Context) error {
	return r.seam.do("remove rules", func() error { return r.Firewall.Remove(ctx) })
}

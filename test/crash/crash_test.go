package crash_test

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"testing"

	"zwrm/test/crash/order"
)

func planes() []string { return []string{"iptables", "nftables"} }

// TestCrash tells every story once for each of its side effects, kills zwrmd right
// behind that, and right before the first, starts it again and looks at what comes of
// it. Between two side effects that do not happen at the same time nothing changes
// outside, so right before one is right behind the one before. Of stories with several
// at the same time both are tried.
func TestCrash(t *testing.T) {
	each(t, func(s *site, st story, mine func(order.Point) bool) {
		killed := 0
		for i, point := range s.count(st) {
			if !mine(point) {
				continue
			}
			killed++
			if i == 0 || st.parallel {
				s.crash(st, order.Order{Action: order.KillBefore, Point: point})
			}
			s.crash(st, order.Order{Action: order.KillAfter, Point: point})
		}
		s.t.Logf("killed at each of %d side effects", killed)
	})
}

// TestNotice sees to it that the guests notice what is open: without the rules they
// reach the prey and the host.
func TestNotice(t *testing.T) {
	dir := programs(t)
	for _, plane := range planes() {
		t.Run(plane, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, dir, plane)
			s.begin(story{})
			s.must(s.deploy("web", 1, 128))
			s.aim()
			s.must(s.converge())
			s.kill()
			s.Run(t, "nft", "flush", "ruleset")
			for _, who := range []string{`guest "prey-0"`, "the host", `VM "web-0"`} {
				s.must(s.eventually(func() error {
					if what := s.breaches.Load(); what == nil || !strings.HasPrefix(*what, who) {
						s.breaches.Store(nil) // the next one, then
						return fmt.Errorf("%s was not reached", who)
					}
					return nil
				}))
			}
		})
	}
}

// each calls tell for every story with every dataplane, on sites of their own. A site
// has some of the side effects of a story as its own, together they have all.
func each(t *testing.T, tell func(s *site, st story, mine func(order.Point) bool)) {
	t.Helper()
	dir := programs(t)
	for _, plane := range planes() {
		for _, st := range stories() {
			sites := max(st.sites, 1)
			for i := range sites {
				t.Run(fmt.Sprintf("%s/%s/%d", plane, st.name, i), func(t *testing.T) {
					t.Parallel()
					s := newSite(t, dir, plane)
					s.begin(st)
					tell(s, st, func(p order.Point) bool {
						hash := fnv.New32a()
						hash.Write([]byte(p.String()))
						return hash.Sum32()%uint32(sites) == uint32(i)
					})
				})
			}
		}
	}
}

// begin has zwrmd run on a site with guests.
func (s *site) begin(st story) {
	s.t.Helper()
	s.pool = st.pool
	s.must(s.configure(s.plane))
	s.start(order.Order{})
	s.must(s.eventually(s.converged))
	if st.name != "start from nothing" {
		s.populate()
	}
}

// count tells a story and returns its side effects.
func (s *site) count(st story) []order.Point {
	s.t.Helper()
	s.must(s.tell(st, order.Order{}))
	points, err := order.Points(s.points())
	s.must(err)
	s.must(s.ensure(st))
	s.must(s.converge())
	var out []order.Point
	for _, p := range points {
		// Housekeeping, at any time.
		if p.Op != "store.prune-released" || st.starts && p.N == 1 {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		s.t.Fatal("the story has no side effects")
	}
	return out
}

// tell brings the site to the beginning of the story and tells it, with an order.
func (s *site) tell(st story, o order.Order) error {
	s.t.Helper()
	s.prepare(st)
	return s.act(st, o)
}

// prepare brings the site to the beginning of the story.
func (s *site) prepare(st story) {
	s.t.Helper()
	if !st.starts {
		s.must(s.runWith(s.plane))
	}
	if err := errors.Join(st.before(s), s.eventually(s.cleaned)); err != nil {
		s.t.Fatalf("before the story: %v", err)
	}
	if !st.starts {
		s.aim()
	}
}

// act tells the story. A start ends with zwrmd, or when there is nothing left to do.
func (s *site) act(st story, o order.Order) error {
	s.t.Helper()
	if !st.starts {
		s.must(s.giver.Give(o))
		err := st.ask(s)
		return errors.Join(err, s.eventually(s.cleaned))
	}
	s.start(o)
	err := s.eventually(func() error {
		if !s.runs() {
			return nil
		}
		return s.converged()
	})
	if err == nil && !s.runs() {
		err = fmt.Errorf("zwrmd ended with %s: %s", s.process.ProcessState, s.stderr.String())
	}
	return err
}

// cleaned fails while zwrmd has something to do behind its answer.
func (s *site) cleaned() error {
	if !s.runs() {
		return nil
	}
	status, err := s.NetworkStatus(s.t.Context())
	switch {
	case err != nil && s.runs():
		return err
	case status.PendingLinks > 0:
		return fmt.Errorf("%d links are to be seen to", status.PendingLinks)
	case s.runs():
		return s.stocked()
	}
	return nil
}

// ensure has zwrmd run.
func (s *site) ensure(st story) error {
	if s.runs() {
		return nil
	}
	s.start(order.Order{})
	return nil
}

// crash tells a story that zwrmd does not survive, and starts it again.
func (s *site) crash(st story, o order.Order) {
	s.t.Helper()
	err := s.tell(st, o)
	if s.runs() && !st.starts { // the side effect may come behind the answer
		_ = s.eventually(func() error {
			if s.runs() {
				return errors.New("it runs")
			}
			return nil
		})
	}
	if s.runs() {
		s.t.Fatalf("%s %s: it did not come to that; answer %v", o.Action, o.Point, err)
	}
	if !s.killedItself() {
		s.t.Fatalf("%s %s: zwrmd ended with %s: %s", o.Action, o.Point, s.process.ProcessState, s.stderr.String())
	}
	s.must(s.ensure(st))
	if err := s.converge(); err != nil {
		s.t.Fatalf("%s %s: %v", o.Action, o.Point, err)
	}
}

func (s *site) killedItself() bool {
	return strings.Contains(s.process.ProcessState.String(), "killed")
}

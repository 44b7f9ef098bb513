package crash_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"zwrm/internal/effect"
	"zwrm/test/crash/order"
	"zwrm/test/zwrmtest"
)

// retries is how often in a row side effects of a dataplane fail, after which it has
// given up trying again.
const retries = 8

// TestFail tells every story once for each of its side effects and has that fail. The
// request says why, and all is as it was before, byte for byte. Where that cannot be,
// the story says so, and all comes to be as after a success.
func TestFail(t *testing.T) {
	each(t, func(s *site, st story, mine func(order.Point) bool) {
		points := s.count(st)
		failed, undone := 0, 0
		for _, point := range points {
			if !mine(point) {
				continue
			}
			failed++
			o := order.Order{Action: order.Fail, Point: point, Times: 1}
			undone += s.fail(st, o, points)
			// Those of a dataplane are tried again. A start ends with the first that
			// fails, and undoes what it did by the same means.
			if strings.Contains(string(point.Op), "tables.") && !st.starts {
				o.Times = retries
				undone += s.fail(st, o, points)
			}
		}
		s.t.Logf("each of %d side effects failed, and the request was undone %d times", failed, undone)
	})
}

// fail tells a story with a failure and looks at what comes of it. It returns 1 if the
// request was undone.
func (s *site) fail(st story, o order.Order, points []order.Point) int {
	s.t.Helper()
	told := fmt.Sprintf("%s %s, %d times", o.Action, o.Point, o.Times)
	s.prepare(st)
	undone := !st.goesOn && !behind(st, o.Point, points)
	var before string
	if undone {
		before = s.state(st)
	}
	err := s.act(st, o)
	if s.runs() {
		s.must(s.giver.Give(order.Order{}))
	}
	switch failed := err != nil; {
	case !failed && !tolerated(st, o):
		s.t.Errorf("%s: no error", told)
	case failed && !strings.Contains(err.Error(), order.Injected):
		s.t.Errorf("%s: error %v", told, err)
	case failed && undone:
		if after := s.state(st); after != before {
			s.t.Errorf("%s: not undone:\n%s", told, zwrmtest.Changes(before, after))
		}
		if st.starts {
			return 1
		}
		s.must(s.converge())
		return 1
	}
	s.must(s.ensure(st))
	if st.again {
		_ = st.ask(s) // as whoever got an error does
	}
	if err := s.converge(); err != nil {
		s.t.Fatalf("%s: %v", told, err)
	}
	return 0
}

// tolerated reports whether a request may succeed although this has failed.
func tolerated(st story, o order.Order) bool {
	switch maker, _, _ := strings.Cut(string(o.Point.Op), "."); {
	case st.starts:
		return true // what is done behind the start of the API
	case st.shared:
		return true // it was not the request that it happened to
	case strings.HasSuffix(maker, "tables"):
		return o.Times == 1 // it is tried again
	case maker == "host":
		return slices.Contains(cleaning(), o.Point.Op)
	}
	return o.Point.Op == "fleet.remove-folder" // housekeeping does it later
}

// cleaning returns what zwrmd does behind its answer, and tries again.
func cleaning() []effect.Op {
	return []effect.Op{"host.condemn-links", "host.delete-link", "host.forget-connections", "host.forget-neighbours"}
}

// behind reports whether a point is behind the one of no return.
func behind(st story, point order.Point, points []order.Point) bool {
	if st.behind == "" {
		return false
	}
	gone := false
	for _, p := range points {
		if p == point {
			return gone
		}
		gone = gone || p.Op == st.behind
	}
	return gone
}

// state returns everything that a request which fails must leave alone: the network,
// and the rows. Freed slots are not among them, since those of VMs that were started
// rest, and ids of apps, which are used again as late as possible.
func (s *site) state(st story) string {
	s.t.Helper()
	text := s.Dump(s.t)
	if st.starts {
		return text
	}
	rows, err := s.query(`SELECT 'app ' || concat_ws(' ', id, name, image, scale, memory_mib, cpus) FROM app ORDER BY 1`)
	s.must(err)
	vms, err := s.query(`SELECT 'vm ' || concat_ws(' ', id, app, name, slot, state, attachment, image, memory_mib, cpus, reason) FROM vm ORDER BY 1`)
	s.must(err)
	return text + rows + vms
}

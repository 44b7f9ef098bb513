package reconcile

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"zwrm/internal/event"
)

const (
	// maxSuspects is how many links are looked at one by one. Of more, all are.
	maxSuspects = 512
	// patience is how long a link that changes all the time is left to come to rest.
	patience = 500 * time.Millisecond
	// maxCulprits is how many are kept of one suspect.
	maxCulprits = 4
)

// trait is what of a link may be wrong.
type trait uint8

const (
	itself  trait = 1 << iota // what a notice of the link tells: the last one told it
	missing                   // an address, a route, or the whole link
)

// suspect is something that may not be as it should be: since when, and who was at it.
type suspect struct {
	first, last time.Time
	wrong       trait // of a link
	by          []event.Culprit
}

func (s *suspect) note(now time.Time, by event.Culprit) {
	if s.first.IsZero() {
		s.first = now
	}
	s.last = now
	if by != (event.Culprit{}) && !slices.Contains(s.by, by) && len(s.by) < maxCulprits {
		s.by = append(s.by, by)
	}
}

// join adds what another suspicion of the same knows.
func (s *suspect) join(o *suspect) {
	if o.first.Before(s.first) {
		s.first = o.first
	}
	if o.last.After(s.last) {
		s.last = o.last
	}
	s.wrong |= o.wrong
	for _, by := range o.by {
		s.note(s.last, by)
	}
}

// suspects is everything that is to be compared with the plan. A nil field is beyond
// suspicion.
type suspects struct {
	links map[string]*suspect // by name
	rules *suspect
	base  *suspect // settings, the bridge and the external interface
	all   *suspect // everything, whatever the other fields are
}

func (s *suspects) empty() bool {
	return len(s.links) == 0 && s.rules == nil && s.base == nil && s.all == nil
}

// link notes a suspicion about a link.
func (s *suspects) link(name string, wrong trait, now time.Time, by event.Culprit) {
	if s.links == nil {
		s.links = map[string]*suspect{}
	}
	l := s.links[name]
	if l == nil {
		if len(s.links) >= maxSuspects {
			s.links = nil
			mark(&s.all, now, by)
			return
		}
		l = &suspect{}
		s.links[name] = l
	}
	l.wrong |= wrong
	l.note(now, by)
}

// fine notes that the link itself is as it should be.
func (s *suspects) fine(name string) {
	if l := s.links[name]; l != nil {
		if l.wrong &^= itself; l.wrong == 0 {
			delete(s.links, name)
		}
	}
}

// mark notes a suspicion about one of the other fields.
func mark(s **suspect, now time.Time, by event.Culprit) {
	if *s == nil {
		*s = &suspect{}
	}
	(*s).note(now, by)
}

// merge takes in the suspicions of another.
func (s *suspects) merge(o suspects) {
	for name, l := range o.links {
		s.link(name, l.wrong, l.first, event.Culprit{})
		if mine := s.links[name]; mine != nil {
			mine.join(l)
		}
	}
	for _, pair := range []struct{ mine, other **suspect }{{&s.rules, &o.rules}, {&s.base, &o.base}, {&s.all, &o.all}} {
		switch {
		case *pair.other == nil:
		case *pair.mine == nil:
			*pair.mine = *pair.other
		default:
			(*pair.mine).join(*pair.other)
		}
	}
}

// of returns the suspicion that a difference of an object confirms, nil if there was
// none.
func (s *suspects) of(object string) *suspect {
	var found *suspect
	switch name, ok := strings.CutPrefix(object, linkObject); {
	case ok:
		found = s.links[name]
	case isBase(object):
		found = s.base
	default:
		found = s.rules
	}
	if found == nil {
		found = s.all
	}
	return found
}

// docket holds the suspects until they are looked at.
type docket struct {
	mu sync.Mutex
	suspects
}

// take takes those that are due. A link whose change may still be under way, and what
// is held, stay: wait is how long until the first of these is due, 0 if none stays.
func (d *docket) take(now time.Time, settle time.Duration, held func(class string) time.Time) (due suspects, wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	later := func(until time.Time) bool {
		left := until.Sub(now)
		if left <= 0 {
			return false
		}
		if wait == 0 || left < wait {
			wait = left
		}
		return true
	}
	for _, pair := range []struct {
		from, to **suspect
		class    string
	}{{&d.all, &due.all, classAll}, {&d.rules, &due.rules, classRules}, {&d.base, &due.base, classBase}} {
		if *pair.from != nil && !later(held(pair.class)) {
			*pair.to, *pair.from = *pair.from, nil
		}
	}
	for name, l := range d.links {
		rest := l.last.Add(settle)
		if tired := l.first.Add(patience); tired.Before(rest) {
			rest = tired
		}
		if !later(rest) && !later(held(linkObject+name)) {
			if due.links == nil {
				due.links = map[string]*suspect{}
			}
			due.links[name] = l
			delete(d.links, name)
		}
	}
	return due, wait
}

// takeAll takes all, due or not.
func (d *docket) takeAll() suspects {
	d.mu.Lock()
	defer d.mu.Unlock()
	taken := d.suspects
	d.suspects = suspects{}
	return taken
}

// putBack takes suspects in again that could not be seen to.
func (d *docket) putBack(s suspects) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.merge(s)
}

// names returns the links, in order.
func (s *suspects) names() []string { return slices.Sorted(maps.Keys(s.links)) }

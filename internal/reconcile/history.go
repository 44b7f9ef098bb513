package reconcile

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"zwrm/internal/event"
	"zwrm/internal/firewall"
)

// maxTold is how many differences of one mending are told one by one.
const maxTold = 64

// Repair is one mending: when, and what was not as it should be.
type Repair struct {
	At          time.Time
	Differences []firewall.Difference
}

// history is what was mended since the start.
type history struct {
	drift   int
	last    *Repair
	repairs map[string]int // differences by the kind of object
	took    Durations
}

// Durations are how long mendings took, from the notice of a change on, in seconds.
type Durations struct {
	Count   uint64
	Sum     float64
	Buckets map[float64]uint64 // how many took as long or less
}

func newDurations() Durations {
	d := Durations{Buckets: map[float64]uint64{}}
	for _, bound := range []float64{0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10} {
		d.Buckets[bound] = 0
	}
	return d
}

func (d *Durations) observe(took time.Duration) {
	d.Count++
	d.Sum += took.Seconds()
	for bound := range d.Buckets {
		if took.Seconds() <= bound {
			d.Buckets[bound]++
		}
	}
}

// History is what was mended since zwrmd started.
type History struct {
	Drift   int            // differences
	Last    *Repair        // nil: none
	Repairs map[string]int // differences by the kind of object: the first word of its name
	Took    Durations
	Fights  []Fight // that go on
	Fought  int     // fights, those that are over included
}

// History returns what was mended since zwrmd started.
func (r *Reconciler) History() History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := History{
		Drift: r.history.drift, Last: r.history.last, Repairs: maps.Clone(r.history.repairs), Took: r.history.took,
		Fights: r.fights.current(), Fought: r.fights.total,
	}
	h.Took.Buckets = maps.Clone(h.Took.Buckets)
	return h
}

// note tells of a mending: what was found, who did it, and how long it lasted.
func (r *Reconciler) note(started time.Time, known suspects, findings []firewall.Difference, failed error) {
	if len(findings) == 0 {
		return
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	by := func(object string) []event.Culprit {
		if s := known.of(object); s != nil {
			return s.by
		}
		return nil
	}
	for i, f := range findings {
		since := started
		if s := known.of(f.Object); s != nil {
			since = s.first
		}
		e := event.Event{
			At: now, Kind: event.Repair, Object: f.Object, By: by(f.Object), Took: now.Sub(since),
			Message: fmt.Sprintf("wanted %s, found %s", f.Wanted, f.Found),
		}
		if failed != nil {
			e.Message += "; not everything could be mended: " + failed.Error()
		}
		if i == maxTold {
			e.Object, e.Message = "network", fmt.Sprintf("%d more differences", len(findings)-i)
		}
		r.log.Warn("network mended", "object", e.Object, "wanted", f.Wanted, "found", f.Found, "by", named(e.By), "took", e.Took)
		r.events.Tell(e)
		if i == maxTold {
			break
		}
	}
	if failed != nil {
		return
	}
	r.count(now, started, known, findings)
	for _, fight := range r.fights.mended(now, findings, by) {
		r.log.Error("somebody changes again and again what is mended", "object", fight.Object, "by", named(fight.By), "mended", fight.Mended, "pause", lastPause)
		r.events.Tell(event.Event{
			At: now, Kind: event.Fight, Object: fight.Object, By: fight.By,
			Message: fmt.Sprintf("begins: mended %d times in %s; from now on it is mended after up to %s each time", fight.Mended, now.Sub(fight.Since).Round(time.Millisecond), lastPause),
		})
	}
}

// count adds a mending to the history.
func (r *Reconciler) count(now, started time.Time, known suspects, findings []firewall.Difference) {
	r.history.drift += len(findings)
	r.history.last = &Repair{At: now, Differences: findings}
	for _, f := range findings {
		r.history.repairs[kindOf(f.Object)]++
	}
	since := started
	if s := known.of(findings[0].Object); s != nil {
		since = s.first
	}
	r.history.took.observe(now.Sub(since))
}

// kindOf returns the first word of an object: link, bridge, sysctl, iptables, ip6tables,
// nftables, and what neighbours have.
func kindOf(object string) string {
	kind, _, _ := strings.Cut(object, " ")
	return kind
}

// named returns culprits in words: "iptables (4711)", "process 4711", or "unknown".
func named(by []event.Culprit) string {
	if len(by) == 0 {
		return "unknown"
	}
	words := make([]string, len(by))
	for i, c := range by {
		switch {
		case c.PID == 0:
			words[i] = c.Program
		case c.Program == "":
			words[i] = fmt.Sprintf("process %d", c.PID)
		default:
			words[i] = fmt.Sprintf("%s (%d)", c.Program, c.PID)
		}
	}
	return strings.Join(words, ", ")
}

// endFights tells of fights that are over.
func (r *Reconciler) endFights() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, fight := range r.fights.settle(time.Now()) {
		r.log.Info("what was changed again and again stays as it should be", "object", fight.Object, "mended", fight.Mended)
		r.events.Tell(event.Event{Kind: event.Fight, Object: fight.Object, By: fight.By, Message: fmt.Sprintf("over: mended %d times, and left alone for %s", fight.Mended, quiet)})
	}
}

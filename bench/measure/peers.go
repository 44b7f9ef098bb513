package measure

import (
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"zwrm/bench/report"
)

// peers measures zwrmd beside the programs of others, each on a host of its own.
func (o Options) peers(t testing.TB, r *report.Results) {
	t.Helper()
	perApp := o.PerApp[0]
	all := []contender{newFloor(t)}
	for _, dataplane := range dataplanes() {
		d := newDaemon(t, dataplane, perApp)
		if d.poolable {
			d.restart(t, o.Pool)
		}
		all = append(all, d)
	}
	labels := []string{report.CNIPtp, report.CNIBridge}
	if _, ok := findPlugin(tapPlugin); ok {
		labels = append(labels, report.CNITap)
	} else {
		r.Note("%s was not there to be measured.", tapPlugin)
	}
	for _, label := range labels {
		all = append(all, newCNI(t, label))
	}
	all = append(all, newGuide(t, true), newGuide(t, false))
	key := report.Key{Part: report.Peers, PerApp: perApp}
	turns := pace{o.Others, (o.Burst + 1) / 2, o.Pause} // half a burst, since there are few rounds
	note(r, key, all, contest(t, all, 0, turns))
	if o.Peers == 0 {
		return
	}
	o.fillAll(t, r, all)
	key.Present = o.Peers
	note(r, key, all, contest(t, all, o.Peers, turns))
}

// fillAll has everyone make as many networks as there are to be present, with what is
// measured. Two at a time, since most of it is programs that are started.
func (o Options) fillAll(t testing.TB, r *report.Results, all []contender) {
	t.Helper()
	made := make([]int, len(all))
	var group errgroup.Group
	group.SetLimit(2)
	for i, c := range all {
		group.Go(func() error {
			start := time.Now()
			for made[i] < o.Peers && time.Since(start) < o.FillTime {
				c.attach(t, made[i])
				made[i]++
			}
			t.Logf("%s made %d networks in %s", c.name(), made[i], time.Since(start).Round(time.Second))
			return nil
		})
	}
	must(t, group.Wait())
	if t.Failed() { // on a goroutine above
		t.FailNow()
	}
	for i, c := range all {
		if made[i] < o.Peers {
			r.Note("%s had %d networks present instead of %d: more took too long to make.", c.name(), made[i], o.Peers)
		}
		if d, ok := c.(*daemon); ok {
			d.settle(t)
		}
	}
}

package measure

import (
	"testing"
	"time"

	"zwrm/bench/report"
)

// contender makes the networks of VMs and takes them away, one by one. What it returns
// is how long it took.
type contender interface {
	name() string
	pooled() bool
	attach(t testing.TB, n int) time.Duration
	detach(t testing.TB, n int) time.Duration
}

// samples are the times of a contender, in milliseconds.
type samples struct{ attach, detach []float64 }

// pace is how contenders take turns.
type pace struct {
	rounds int           // of everyone
	burst  int           // rounds that are one's turn; the first finds all asleep
	pause  time.Duration // between turns, so that what one has left to do is not in the next one's figures
}

// contest has everyone attach the VMs from first on in turn, then detach them, and
// returns how long it took each, in the order of contenders.
func contest(t testing.TB, all []contender, first int, p pace) []samples {
	t.Helper()
	took := make([]samples, len(all))
	turn := func(do func(i, round int)) {
		for start := 0; start < p.rounds; start += p.burst {
			for j := range all {
				i := (start/p.burst + j) % len(all) // everyone is everyone's successor
				for round := start; round < min(start+p.burst, p.rounds); round++ {
					do(i, round)
				}
				time.Sleep(p.pause)
			}
		}
	}
	turn(func(i, round int) {
		took[i].attach = append(took[i].attach, milliseconds(all[i].attach(t, first+round)))
	})
	turn(func(i, round int) {
		took[i].detach = append(took[i].detach, milliseconds(all[i].detach(t, first+p.rounds-1-round)))
	})
	return took
}

// note adds the figures of a contest. The first contender is the floor, whose figures
// go with whatever the key says of the pool.
func note(r *report.Results, key report.Key, all []contender, took []samples) {
	for i, c := range all {
		key.By = c.name()
		if i > 0 {
			key.Pool = c.pooled()
		}
		key.Measure = report.Attach
		r.Add(key, took[i].attach, took[0].attach)
		key.Measure = report.Detach
		r.Add(key, took[i].detach, took[0].detach)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

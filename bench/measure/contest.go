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

// contest has everyone attach the VMs from first on in turn, then detach them, and
// returns how long it took each, in the order of contenders. A pause is between any two
// things that are timed, so that what the first has left to do, such as the refill of a
// pool, is not in the figure of the second.
func contest(t testing.TB, all []contender, first, rounds int, pause time.Duration) []samples {
	t.Helper()
	took := make([]samples, len(all))
	turn := func(round int, do func(i int)) {
		for j := range all {
			do((round + j) % len(all)) // everyone is everyone's successor
			time.Sleep(pause)
		}
	}
	for round := range rounds {
		turn(round, func(i int) {
			took[i].attach = append(took[i].attach, milliseconds(all[i].attach(t, first+round)))
		})
	}
	for round := range rounds {
		turn(round, func(i int) {
			took[i].detach = append(took[i].detach, milliseconds(all[i].detach(t, first+rounds-1-round)))
		})
	}
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

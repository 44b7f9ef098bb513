package bench_test

import (
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// play is one round of a contest on one host.
type play func(r *router) error

// contest plays rounds on every router in turn, each round beginning with another one,
// and returns how long each took, by router and round. Prepare makes what a round
// needs and is not timed.
//
// The time is that which this thread got from a processor: packets are routed within
// its system calls, and what else runs on the machine does not count.
func contest(t testing.TB, routers []*router, rounds int, prepare func() play) [][]time.Duration {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	took := make([][]time.Duration, len(routers))
	for round := range rounds {
		p := prepare()
		for i := range routers {
			at := (i + round) % len(routers)
			start := threadTime()
			err := p(routers[at])
			took[at] = append(took[at], threadTime()-start)
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
	}
	return took
}

func threadTime() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now) // fails for clocks that there are not
	return time.Duration(now.Nano())
}

// ratios are how the rounds of one router relate to those of another: the median, and
// what a tenth of the rounds is below and above of.
type ratios struct{ median, low, high float64 }

func (r ratios) String() string { return fmt.Sprintf("× %.2f (%.2f-%.2f)", r.median, r.low, r.high) }

// relate returns how long rounds took in relation to the same rounds of another router;
// of rates, where more is better, it returns the inverse.
func relate(took, other []time.Duration, rate bool) ratios {
	each := make([]float64, len(took))
	for i := range took {
		each[i] = float64(took[i]) / float64(other[i])
		if rate {
			each[i] = 1 / each[i]
		}
	}
	slices.Sort(each)
	return ratios{quantile(each, 0.5), quantile(each, 0.1), quantile(each, 0.9)}
}

// quantile returns the value that a share of the sorted values is below of.
func quantile[T any](sorted []T, share float64) T {
	return sorted[int(share*float64(len(sorted)-1))]
}

func medians(rows [][]time.Duration) (each []time.Duration) {
	for _, row := range rows {
		each = append(each, median(row))
	}
	return each
}

func median(values []time.Duration) time.Duration {
	return quantile(slices.Sorted(slices.Values(values)), 0.5)
}

// squareRoot returns the least number whose square is n or more.
func squareRoot(n int) int { return int(math.Ceil(math.Sqrt(float64(n)))) }

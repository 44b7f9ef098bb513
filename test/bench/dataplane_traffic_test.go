package bench_test

import (
	"fmt"
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
func contest(t testing.TB, routers []*router, rounds int, prepare func(round int) play) [][]time.Duration {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	took := make([][]time.Duration, len(routers))
	for round := range rounds {
		p := prepare(round)
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

// greeting is a round trip of the flow that a pair always has.
func greeting(pairs []pair, i int) []hop {
	client, server := pairs[i].client(clientPort), pairs[i].server(serverPort)
	return []hop{{i, false, udp(client, server)}, {i, true, udp(server, client)}}
}

// greetings is a round trip for each pair, the same in every round.
func greetings(pairs []pair) func(int) play {
	var hops []hop
	for i := range pairs {
		hops = append(hops, greeting(pairs, i)...)
	}
	return func(int) play { return func(r *router) error { return r.carry(hops) } }
}

// firstPackets is a packet for each pair that begins a flow.
func firstPackets(pairs []pair) func(int) play {
	return func(round int) play {
		var hops []hop
		for i, p := range pairs {
			hops = append(hops, hop{i, false, udp(p.client(newPort(round)), p.server(serverPort+1))})
		}
		return func(r *router) error { return r.carry(hops) }
	}
}

// connections is a TCP connection for each pair, opened and closed.
func connections(pairs []pair) func(int) play {
	return func(round int) play {
		var hops []hop
		for i, p := range pairs {
			hops = append(hops, connection(i, p, newPort(round))...)
		}
		return func(r *router) error { return r.carry(hops) }
	}
}

// connection is what two ends that have nothing to say to each other send (RFC 9293
// figures 6 and 12).
func connection(i int, p pair, port uint16) []hop {
	const c, s = 1000, 5000
	client, server := p.client(port), p.server(serverPort)
	return []hop{
		{i, false, tcp(client, server, syn, c, 0)},
		{i, true, tcp(server, client, syn|ack, s, c+1)},
		{i, false, tcp(client, server, ack, c+1, s+1)},
		{i, false, tcp(client, server, fin|ack, c+1, s+1)},
		{i, true, tcp(server, client, fin|ack, s+1, c+2)},
		{i, false, tcp(client, server, ack, c+2, s+2)},
	}
}

// maxRounds is how many ports newPort has. A flow that a port began before would not
// be new.
const maxRounds = 50000

func newPort(round int) uint16 { return uint16(10000 + round) }

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

func median(values []time.Duration) time.Duration {
	return quantile(slices.Sorted(slices.Values(values)), 0.5)
}

package bench_test

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/test/bench/figures"
)

// world is everything that packets are timed on.
type world struct {
	routers []*router
	couples []*couple
	port    int // the next that no flow had yet
}

// lastPort bounds the number of flows: one that was there before is not new.
const lastPort = 60000

func newWorld(t testing.TB, size scale) *world {
	t.Helper()
	w := &world{port: 10000}
	for _, with := range allRules() {
		w.routers = append(w.routers, newRouter(t, with, size.apps, size.pairs))
	}
	for i := range size.couples {
		w.couples = append(w.couples, newCouple(t, w.routers, i*size.pairs/size.couples))
	}
	return w
}

// newPorts returns the first of n ports in a row, of which no flow was.
func (w *world) newPorts(t testing.TB, n int) uint16 {
	t.Helper()
	first := w.port
	if w.port += n; w.port > lastPort {
		t.Fatal("more rounds than there are ports")
	}
	return uint16(first)
}

// measure times one metric on every host.
func (w *world) measure(t testing.TB, path figures.Path, metric figures.Metric, rounds int) outcome {
	t.Helper()
	prepare, units := w.frames(t, metric), len(w.routers[0].pairs)
	if path == figures.GuestToGuest {
		prepare, units = w.words(t, metric, rounds), len(w.couples)
	}
	took := contest(t, w.routers, rounds, prepare)
	o := outcome{rounds: rounds, plain: median(took[0]) / time.Duration(units), rate: metric == figures.Connections, ratios: map[rules]ratios{}}
	for i, r := range w.routers[1:] {
		o.ratios[r.rules] = relate(took[i+1], took[0], o.rate)
	}
	return o
}

// frames returns what prepares a round of one metric in which frames go through the
// hosts, made beforehand, for each pair.
func (w *world) frames(t testing.TB, metric figures.Metric) func() play {
	pairs := w.routers[0].pairs
	return func() play {
		port := w.newPorts(t, 1)
		var hops []hop
		for i, p := range pairs {
			switch metric {
			case figures.RoundTrip:
				hops = append(hops, greeting(pairs, i)...)
			case figures.FirstPacket:
				hops = append(hops, hop{i, false, udp(p.client(port), p.server(serverPort+1))})
			case figures.Connections:
				hops = append(hops, connection(i, p, port)...)
			}
		}
		return func(r *router) error { return r.carry(hops) }
	}
}

// greeting is a round trip of the flow that a pair always has.
func greeting(pairs []pair, i int) []hop {
	client, server := pairs[i].client(clientPort), pairs[i].server(serverPort)
	return []hop{{i, false, udp(client, server)}, {i, true, udp(server, client)}}
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

// words returns what prepares a round of one metric in which guests speak, for each
// couple.
func (w *world) words(t testing.TB, metric figures.Metric, rounds int) func() play {
	switch metric {
	case figures.FirstPacket:
		return w.firstWords(t, rounds)
	case figures.Connections:
		return func() play { return w.connects(t) }
	}
	return func() play {
		return w.each(func(i int, r *router) error {
			hello := w.couples[i].hello
			return errors.Join(hello.ask(r, 0), hello.answer(r, 0))
		})
	}
}

// each is a round in which every couple does the same.
func (w *world) each(do func(i int, r *router) error) play {
	return func(r *router) error {
		for i := range w.couples {
			if err := do(i, r); err != nil {
				return err
			}
		}
		return nil
	}
}

func (w *world) firstWords(t testing.TB, rounds int) func() play {
	sockets := squareRoot(rounds)
	port := w.newPorts(t, sockets)
	var talks []*talk
	for _, c := range w.couples {
		talks = append(talks, c.talk(t, sockets, port, port))
	}
	flow := -1
	return func() play {
		flow++
		return w.each(func(i int, r *router) error { return talks[i].ask(r, flow) })
	}
}

func (w *world) connects(t testing.TB) play {
	port := w.newPorts(t, 1)
	sockets := map[*router][]int{}
	for _, c := range w.couples {
		c.client.ns.Do(t, func() {
			for _, r := range w.routers {
				sockets[r] = append(sockets[r], socket(t, unix.SOCK_STREAM, c.client.at(port)))
			}
		})
	}
	return w.each(func(i int, r *router) error { return w.couples[i].connect(r, sockets[r][i]) })
}

package bench_test

import (
	"testing"

	"zwrm/test/bench"
)

// Sizes of what is compared.
const (
	apps       = 1600
	pairs      = 16 // VMs that speak by TAPs
	couples    = 4  // of them, those that speak by guests, too
)

// world is everything that packets are timed on.
type world struct {
	routers []*router
	couples []*couple
	round   int // the next; each has ports of its own
}

func newWorld(t testing.TB, apps, pairs, couples int) *world {
	t.Helper()
	w := &world{}
	for _, with := range allRules() {
		w.routers = append(w.routers, newRouter(t, with, apps, pairs))
	}
	for i := range couples {
		w.couples = append(w.couples, newCouple(t, w.routers, i*pairs/couples))
	}
	return w
}

var _ = bench.Begin

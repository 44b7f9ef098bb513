package host

import "sync"

// together carries out what callers want who wait for each other, all at once. The zero
// value is ready.
type together[W any] struct {
	turn sync.Mutex // held by who carries out

	mu   sync.Mutex
	next *batch[W] // nil: nobody waits
}

// batch is what callers want next.
type batch[W any] struct {
	wishes []W
	done   chan struct{}
}

// do returns when a wish is carried out: by this caller, who then does it for those as
// well who came while it waited for its turn, or by one who did. fits reports whether a
// wish can be carried out with others.
func (t *together[W]) do(wish W, fits func(others []W) bool, carryOut func(wishes []W)) {
	t.mu.Lock()
	b := t.next
	first := b == nil || !fits(b.wishes)
	if first {
		b = &batch[W]{done: make(chan struct{})}
		t.next = b
	}
	b.wishes = append(b.wishes, wish)
	t.mu.Unlock()
	if !first {
		<-b.done
		return
	}
	t.turn.Lock()
	defer t.turn.Unlock()
	t.mu.Lock()
	if t.next == b {
		t.next = nil // who comes from here on is not among them
	}
	t.mu.Unlock()
	defer close(b.done)
	carryOut(b.wishes)
}

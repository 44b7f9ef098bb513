package turn

import "sync"

// Shared carries out wishes, one at a time or several at once. The zero value is ready.
type Shared[W any] struct {
	turn sync.Mutex // held by who carries out

	mu   sync.Mutex
	next *batch[W] // nil: nobody waits
}

// batch is what callers want next.
type batch[W any] struct {
	wishes []W
	done   chan struct{}
}

// Lock waits until nothing is carried out, and keeps it so until Unlock.
func (s *Shared[W]) Lock() { s.turn.Lock() }

// Unlock is the end of Lock.
func (s *Shared[W]) Unlock() { s.turn.Unlock() }

// Do returns when a wish is carried out: by this caller, who then does it for those as
// well who came while it waited for its turn, or by one who did. fits reports whether
// the wish can be carried out with others; nil: with any.
func (s *Shared[W]) Do(wish W, fits func(others []W) bool, carryOut func(wishes []W)) {
	s.mu.Lock()
	b := s.next
	first := b == nil || fits != nil && !fits(b.wishes)
	if first {
		b = &batch[W]{done: make(chan struct{})}
		s.next = b
	}
	b.wishes = append(b.wishes, wish)
	s.mu.Unlock()
	if !first {
		<-b.done
		return
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	if s.next == b {
		s.next = nil // who comes from here on is not among them
	}
	s.mu.Unlock()
	defer close(b.done)
	carryOut(b.wishes)
}

package daemon

import (
	"context"
	"sync"
	"time"
)

// readWithin bounds the reading of counters from the kernel.
const readWithin = 5 * time.Second

// readings lets many ask for what is costly to read. Those who come while it is being
// read wait for the next reading, and share it: nobody gets what is older than the
// question, and there is one reading at a time, however many ask. Its zero value is
// ready for use.
type readings[T any] struct {
	mu   sync.Mutex
	busy bool
	next *reading[T] // has not begun; nil: nobody has asked for it
}

type reading[T any] struct {
	read  func(context.Context) (T, error)
	done  chan struct{}
	value T
	err   error
}

// get returns what read returns, called once for all who wait. It is given up with ctx
// for the one who asked only.
func (r *readings[T]) get(ctx context.Context, read func(context.Context) (T, error)) (T, error) {
	r.mu.Lock()
	mine := r.next
	if mine == nil {
		mine = &reading[T]{read: read, done: make(chan struct{})}
		r.next = mine
		r.begin()
	}
	r.mu.Unlock()
	select {
	case <-mine.done:
		return mine.value, mine.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// begin begins the next reading, if somebody asked for it and none is under way. The
// caller holds mu.
func (r *readings[T]) begin() {
	if r.busy || r.next == nil {
		return
	}
	mine := r.next
	r.busy, r.next = true, nil // who asks from here on gets the one behind it
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), readWithin)
		defer cancel()
		mine.value, mine.err = mine.read(ctx)
		close(mine.done)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.busy = false
		r.begin()
	}()
}

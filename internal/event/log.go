package event

import (
	"context"
	"sync"
	"time"
)

// Kind is what an event is about.
type Kind string

// The kinds.
const (
	App    Kind = "app"
	VM     Kind = "vm"
	Repair Kind = "repair"
)

// Event is one thing that happened.
type Event struct {
	At      time.Time
	Kind    Kind
	Object  string
	Message string
}

// backlog is how many events a listener may lag behind before it loses some.
const backlog = 256

// Log spreads events. The zero value is ready; it is safe for concurrent use.
type Log struct {
	mu        sync.Mutex
	listeners map[chan Event]struct{}
}

// Publish sends the event to all who listen. It never waits: a listener that is
// too slow misses events rather than stopping the daemon's work.
func (l *Log) Publish(kind Kind, object, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := Event{At: time.Now(), Kind: kind, Object: object, Message: message}
	for c := range l.listeners {
		select {
		case c <- e:
		default:
		}
	}
}

// Subscribe returns the events from now on. The channel is closed when ctx ends.
func (l *Log) Subscribe(ctx context.Context) <-chan Event {
	c := make(chan Event, backlog)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listeners == nil {
		l.listeners = map[chan Event]struct{}{}
	}
	l.listeners[c] = struct{}{}
	context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.listeners, c)
		close(c)
	})
	return c
}

package event

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Kind is what an event is about.
type Kind string

// The kinds.
const (
	App    Kind = "app"
	VM     Kind = "vm"
	Repair Kind = "repair" // something was not as it should be, and was mended
	Stray  Kind = "stray"  // something that is not as it should be is left alone, at least for now
	Fight  Kind = "fight"  // somebody changes again and again what is mended; or no more
	Uplink Kind = "uplink" // the external interface changed
)

// Culprit is a process that changed something, as far as the kernel names it.
type Culprit struct {
	PID     int
	Program string // empty: not known
}

// Event is one thing that happened.
type Event struct {
	At      time.Time
	Kind    Kind
	Object  string
	Message string
	By      []Culprit     // of a Repair and a Fight: who changed it; empty: the kernel does not say
	Took    time.Duration // of a Repair: from the notice of the change until it was mended
}

const (
	// backlog is how many events a listener may lag behind before it loses some.
	backlog = 256
	// kept is how many events are remembered.
	kept = 1024
)

// Log spreads events and remembers the last of them. The zero value is ready; it is
// safe for concurrent use.
type Log struct {
	mu        sync.Mutex
	listeners map[chan Event]struct{}
	recent    []Event // a ring once it is full
	next      int     // of the ring, the oldest
}

// Publish notes an event that happens now.
func (l *Log) Publish(kind Kind, object, message string) {
	l.Tell(Event{Kind: kind, Object: object, Message: message})
}

// Tell notes an event and sends it to all who listen. Without a time it happens
// now. It never waits: a listener that is too slow misses events rather than stopping
// the daemon's work.
func (l *Log) Tell(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.At.IsZero() {
		e.At = time.Now()
	}
	if len(l.recent) < kept {
		l.recent = append(l.recent, e)
	} else {
		l.recent[l.next] = e
		l.next = (l.next + 1) % kept
	}
	for c := range l.listeners {
		select {
		case c <- e:
		default:
		}
	}
}

// Recent returns the last events, the oldest first.
func (l *Log) Recent() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.remembered()
}

func (l *Log) remembered() []Event { return slices.Concat(l.recent[l.next:], l.recent[:l.next]) }

// Subscribe returns the last events, and a channel of those from now on, which is
// closed when ctx ends. None is in both and none in neither.
func (l *Log) Subscribe(ctx context.Context) (recent []Event, events <-chan Event) {
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
	return l.remembered(), c
}

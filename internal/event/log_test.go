package event_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"zwrm/internal/event"
)

// TestRecent: the last events are remembered in order, and no more than a fixed number.
func TestRecent(t *testing.T) {
	var log event.Log
	if got := log.Recent(); len(got) != 0 {
		t.Errorf("at first there is %v", got)
	}
	const told = 5000
	for i := range told {
		log.Publish(event.VM, fmt.Sprint(i), "")
	}
	recent := log.Recent()
	if len(recent) != 1024 {
		t.Fatalf("%d are remembered", len(recent))
	}
	for i, e := range recent {
		if e.Object != fmt.Sprint(told-len(recent)+i) || e.At.IsZero() {
			t.Fatalf("event %d is %v", i, e)
		}
	}
}

// TestSubscribe: who listens gets what was, and what comes, each once; who does not
// read loses some and holds nobody up.
func TestSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log event.Log
		log.Publish(event.App, "web", "before")
		ctx, cancel := context.WithCancel(t.Context())
		recent, events := log.Subscribe(ctx)
		if len(recent) != 1 || recent[0].Message != "before" {
			t.Errorf("recent events are %v", recent)
		}
		for i := range 1000 {
			log.Publish(event.VM, fmt.Sprint(i), "")
		}
		cancel()
		synctest.Wait()
		n := 0
		for e := range events {
			if e.Object != fmt.Sprint(n) {
				t.Fatalf("event %d is %v", n, e)
			}
			n++
		}
		if n == 0 || n >= 1000 {
			t.Errorf("%d events waited", n)
		}
	})
}

package reconcile_test

import (
	"errors"
	"slices"
	"testing"
)

// TestStartThatFails: with its last step failing it leaves all as it was, but for the
// rules that are between VMs whose TAPs are up.
func TestStartThatFails(t *testing.T) {
	broken := errors.New("broken on purpose")
	start := func(w *world) {
		t.Helper()
		w.kernel.Fail = func(op string) error {
			if op == "forget others within 172.16.0.0/16" {
				return broken
			}
			return nil
		}
		if _, err := w.Stand(t.Context()); !errors.Is(err, broken) {
			t.Fatalf("error %v", err)
		}
		w.kernel.Fail = nil
	}

	w := newWorld(t)
	before := w.text()
	start(w)
	if after := w.text(); after != before {
		t.Errorf("there was\n%s\nand is now\n%s", before, after)
	}

	w.rows = rowsOf(2)
	w.sync()
	w.must(w.Shutdown(t.Context()))
	before = w.text()
	next := newWorldOn(t, w.kernel, w.rules)
	next.rows = w.rows
	start(next)
	if after := next.text(); after != before {
		t.Errorf("after a stop there was\n%s\nand is now\n%s", before, after)
	}

	next.sync()
	standing := next.rules.Rules()
	last := newWorldOn(t, w.kernel, w.rules)
	last.rows = w.rows
	start(last)
	if after := last.rules.Rules(); !slices.Equal(after, standing) {
		t.Errorf("rules between VMs that run were %v and are now %v", standing, after)
	}
}

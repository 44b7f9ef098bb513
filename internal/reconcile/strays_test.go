package reconcile_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"zwrm/internal/event"
	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/reconcile"
)

// TestLostRows: when rows are lost, a TAP that a process has open is cut off at once
// and deleted only if long after nobody has missed it. One that is not open goes at once.
func TestLostRows(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.kernel.ChangeLink("zvm1", func(l *host.Link) { l.Carrier = true })
		rows := w.rows
		w.rows = nil
		if _, err := w.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		left := w.link("zvm1", 0)
		if left.About != host.AboutLink || left.Link.Group != model.GroupUnassigned {
			t.Errorf("the TAP of a running VM: %+v", left)
		}
		for _, name := range []string{"zvm0", "zvm2"} {
			if w.link(name, 0).About != host.AboutNoLink {
				t.Errorf("%s is left", name)
			}
		}
		if got := w.Strays(); !slices.Equal(got, []ipam.Slot{1}) {
			t.Errorf("strays: %v", got)
		}
		// It is told once, counted as no repair any more, and shown by each check.
		drift := w.History().Drift
		time.Sleep(reconcile.StrayRest / 2)
		if found, err := w.Repair(t.Context()); err != nil || len(found) != 0 || w.History().Drift != drift {
			t.Errorf("mended again: %v, %v", found, err)
		}
		if told := w.told(event.Stray); len(told) != 1 || !strings.Contains(told[0], "link zvm1") {
			t.Errorf("told: %q", told)
		}
		if found, err := w.Check(t.Context()); err != nil || len(found) != 1 || !strings.Contains(found[0].Found, "a process has it open") {
			t.Errorf("check: %v, %v", found, err)
		}
		// The rows come back in time.
		w.rows = rows
		if _, err := w.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		if back := w.link("zvm1", 0); back.Link.Group != 0x5a000001 || slices.Contains(w.kernel.Journal(), "delete zvm1") || len(w.Strays()) != 0 {
			t.Errorf("with its row: %+v", back)
		}
		// They are lost again, for good.
		w.rows = nil
		for range 3 {
			if _, err := w.Repair(t.Context()); err != nil {
				t.Fatal(err)
			}
			if w.link("zvm1", 0).About == host.AboutNoLink {
				t.Error("deleted at once")
			}
		}
		time.Sleep(reconcile.StrayRest)
		if _, err := w.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w.link("zvm1", 0).About != host.AboutNoLink || len(w.Strays()) != 0 {
			t.Error("it is never deleted")
		}
	})
}

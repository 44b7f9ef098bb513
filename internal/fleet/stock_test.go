package fleet_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"zwrm/internal/model"
)

// TestStockOfNetworks: networks are made ahead, handed out without being made, and made
// up for, also of what VMs that are gone have left. They are nobody's: each slot can be
// had.
func TestStockOfNetworks(t *testing.T) {
	w := newWorldOf(t, "pool = 2\nsubnet = \"172.16.0.0/28\"\n") // four slots
	stocked := func() bool { _, lack := w.net.Spares(); return lack == 0 }
	w.eventually("two networks are made ahead", stocked)
	w.insync()
	before := len(w.kernel.Journal())
	vm, err := w.Attach(t.Context(), "one", "web")
	w.must(err)
	w.eventually("one more is made ahead", stocked)
	if made := slices.Index(w.kernel.Journal()[before:], "create "+vm.Slot.TAP()); made >= 0 {
		t.Error("the network of the VM was made although one was there")
	}
	w.insync()
	for _, name := range []model.Name{"two", "three", "four"} {
		_, err := w.Attach(t.Context(), name, "web")
		w.must(err)
	}
	var problem *model.Problem
	if _, err := w.Attach(t.Context(), "five", "web"); !errors.As(err, &problem) || problem.Code != model.Exhausted {
		t.Errorf("a fifth VM: %v", err)
	}
	w.must(w.Detach(t.Context(), "two"))
	w.must(w.Detach(t.Context(), "three"))
	w.eventually("what they left is ready for others", stocked)
	w.insync()
	if used, free, resting := w.Slots(); used != 2 || free != 0 || resting != 2 {
		t.Errorf("%d slots are used, %d free, %d rest", used, free, resting)
	}
	w.restart()
	if !stocked() {
		t.Error("the next zwrmd makes networks that are there")
	}
	w.insync()
}

// TestStockUnderLoad: whoever wants a network gets it while others are made ahead and
// cleaned up, and never one that somebody has.
func TestStockUnderLoad(t *testing.T) {
	w := newWorldOf(t, "pool = 8\n")
	errs := make(chan error)
	const clients, rounds = 16, 20
	for c := range clients {
		go func() {
			var err error
			for n := range rounds {
				name := model.Name(fmt.Sprintf("vm-%d-%d", c, n))
				_, attached := w.Attach(t.Context(), name, model.Name(fmt.Sprintf("app-%d", c)))
				if err = errors.Join(err, attached); n%2 == 1 {
					err = errors.Join(err, w.Detach(t.Context(), name))
				}
			}
			errs <- err
		}()
	}
	for range clients {
		w.must(<-errs)
	}
	w.eventually("the stock is full", func() bool { _, lack := w.net.Spares(); return lack == 0 && w.net.Pending() == 0 })
	w.insync()
	if open := len(openLinks(w)); open != clients*rounds/2 {
		t.Errorf("%d links are open, want %d", open, clients*rounds/2)
	}
}

// openLinks returns the TAPs of VMs that may send.
func openLinks(w *world) (names []string) {
	w.t.Helper()
	links, err := w.kernel.Links(w.t.Context())
	w.must(err)
	for _, l := range links {
		if l.Group.App() != 0 {
			names = append(names, l.Name)
		}
	}
	return names
}

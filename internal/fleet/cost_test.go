package fleet_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"zwrm/internal/model"
)

// What attachments may cost: allocations of one request, and what is kept of each.
const (
	maxAttach = 300 // allocations, some of which are the kernel in memory
	maxDetach = 600
	maxKept   = 2 << 10 // bytes of each VM, with what the kernel in memory has
	crowd     = 2000    // VMs
)

// TestCostOfOneVM: attach and detach allocate as much with thousands of VMs as with
// none, and zwrmd keeps little of each.
func TestCostOfOneVM(t *testing.T) {
	w := newWorld(t, "")
	name := func(i int) model.Name { return model.Name(fmt.Sprintf("vm-%d", i)) }
	next := 0
	attach := func() {
		_, err := w.Attach(t.Context(), name(next), model.Name(fmt.Sprintf("app-%d", next/10)))
		w.must(err)
		next++
	}
	gone := 0
	detach := func() {
		w.must(w.Detach(t.Context(), name(gone)))
		gone++
	}
	measure := func() (in, out float64) {
		in = testing.AllocsPerRun(50, attach)
		out = testing.AllocsPerRun(50, detach)
		return in, out
	}
	attach() // what only the first one makes
	few, less := measure()
	before := heap()
	goroutines := runtime.NumGoroutine()
	for next-gone < crowd {
		attach()
	}
	kept := (heap() - before) / crowd
	many, more := measure()
	t.Logf("allocations of an attach: %.0f, and %.0f with %d VMs; of a detach: %.0f and %.0f; kept of a VM: %d bytes", few, many, crowd, less, more, kept)
	if few > maxAttach || many > few*1.2 {
		t.Errorf("an attach allocates %.0f times, and %.0f times with %d VMs", few, many, crowd)
	}
	if less > maxDetach || more > less*1.2 {
		t.Errorf("a detach allocates %.0f times, and %.0f times with %d VMs", less, more, crowd)
	}
	if kept > maxKept {
		t.Errorf("%d bytes are kept of each VM", kept)
	}
	left := func() bool { return runtime.NumGoroutine() > goroutines+8 }
	for range 100 { // those of SQLite's driver end soon, when they get a processor
		if !left() {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if left() {
		t.Errorf("%d goroutines, and %d with %d VMs", goroutines, runtime.NumGoroutine(), crowd)
	}
}

// heap returns how many bytes are in use.
func heap() int {
	runtime.GC()
	runtime.GC() // what finalizers held
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int(stats.HeapAlloc)
}

package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// many is how many links a test has: enough for requests to come in between.
const many = 1000

// rowsOf returns as many VMs, two to an app.
func rowsOf(n int) []model.VM {
	vms := make([]model.VM, n)
	for i := range vms {
		vms[i] = vm(1, ipam.Slot(i))
		vms[i].App, vms[i].AppName = model.AppID(i/2+1), model.Name(fmt.Sprintf("app%d", i/2))
	}
	return vms
}

// TestStand: the rules stand, what is open by mistake is closed, and links wait.
func TestStand(t *testing.T) {
	w := newWorld(t)
	w.must(w.kernel.AddLink(host.Link{Name: "zvm9", Kind: host.KindTAP, Group: 0x5a000001, Up: true}))
	w.rows = []model.VM{vm(1, 0), vm(1, 1)}
	findings, err := w.Stand(t.Context())
	w.must(err)
	if got := openLinks(w.kernel); len(got) != 0 {
		t.Errorf("open: %v", got)
	}
	if len(w.rules.Rules()) == 0 {
		t.Error("there are no rules")
	}
	if got := w.Pending(); got != 3 {
		t.Errorf("%d links are pending, want two to make and one to delete", got)
	}
	left := w.sync()
	if got := openLinks(w.kernel); !slices.Equal(got, []string{"zvm0", "zvm1"}) || w.Pending() != 0 {
		t.Errorf("open: %v, %d links pending", got, w.Pending())
	}
	if len(left) >= len(findings) {
		t.Errorf("found %v first and %v then", findings, left)
	}
}

// TestRequestsDuringSync: while a Sync makes many links, VMs come and go. Nobody
// waits for its end, and what it does later undoes nothing of it.
func TestRequestsDuringSync(t *testing.T) {
	w := newWorld(t)
	w.rows = rowsOf(many)
	last := w.rows[many-1]
	closed, gone, fresh, stray := w.rows[many-2], w.rows[many-3], vm(1, many), ipam.Slot(many+1)
	fresh.App, fresh.AppName = many, "fresh"
	for _, slot := range []ipam.Slot{fresh.Slot, stray} { // of VMs that are gone
		w.must(w.kernel.AddLink(host.Link{Name: slot.TAP(), Kind: host.KindTAP, Group: 0x5a000001, Up: true}))
	}
	before := -1 // how many operations there were when all requests were done
	requests := func() {
		end := w.Begin()
		w.rows = slices.Concat(w.rows[:many-3], []model.VM{closed, last, fresh})
		w.rows[many-3].State = model.Failed
		w.must(w.Close(context.Background(), gone, closed))
		w.must(w.Reconciler.Remove(context.Background(), gone))
		w.must(w.open(context.Background(), fresh))
		before = len(w.kernel.Journal())
		end()
	}
	done := make(chan struct{})
	w.kernel.Fail = func(op string) error {
		switch n, isMade := strings.CutPrefix(op, "create zvm"); {
		case op == "create zvm10":
			go func() { defer close(done); requests() }()
		case isMade && strings.HasSuffix(n, "00"):
			select { // some time to begin, which is all that it lacks
			case <-done:
			case <-time.After(5 * time.Millisecond):
			}
		}
		return nil
	}
	w.sync()
	<-done
	journal := w.kernel.Journal()
	if !slices.Contains(journal[before:], "create "+last.Slot.TAP()) {
		t.Error("the requests waited for the last link")
	}
	for _, op := range journal {
		if op == "create "+gone.Slot.TAP() || op == "create "+closed.Slot.TAP() || op == "delete "+fresh.Slot.TAP() {
			t.Errorf("%q, although its VM had changed", op)
		}
	}
	if !slices.Contains(journal, "delete "+stray.TAP()) {
		t.Error("the link of no VM is left")
	}
	w.kernel.Fail = nil
	if findings := w.sync(); len(findings) != 1 || !strings.Contains(findings[0].Object, closed.Slot.TAP()) {
		t.Errorf("left to do but the link of the failed VM: %v", findings)
	}
	full := newWorld(t)
	full.rows = w.rows
	full.sync()
	if a, b := w.text(), full.text(); a != b {
		t.Errorf("now there is\n%s\nand should be\n%s", a, b)
	}
}

// TestSyncEndsWithItsContext: a stop of zwrmd does not wait for thousands of links,
// and the next Sync makes the rest.
func TestSyncEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	w.rows = rowsOf(many)
	ctx, end := context.WithCancel(t.Context())
	w.kernel.Fail = func(op string) error {
		if op == "create zvm100" {
			end()
		}
		return nil
	}
	if _, err := w.Sync(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	w.kernel.Fail = nil
	if got := len(openLinks(w.kernel)); got < 64 || got > 128 {
		t.Errorf("%d links are open", got)
	}
	w.sync()
	if got := len(openLinks(w.kernel)); got != many {
		t.Errorf("%d links are open after the next Sync", got)
	}
}

// TestOneSyncAtATime: a second one waits for the first, or for the end of its ctx.
func TestOneSyncAtATime(t *testing.T) {
	w := newWorld(t)
	w.rows = rowsOf(2)
	ctx, end := context.WithCancel(t.Context())
	end()
	second := errors.New("not tried")
	w.kernel.Fail = func(op string) error {
		if op == "create zvm0" {
			_, second = w.Sync(ctx)
		}
		return nil
	}
	w.sync()
	if !errors.Is(second, context.Canceled) {
		t.Errorf("the second Sync: %v", second)
	}
}

// TestRebuilt: it names the open VMs whose TAP was made anew by a Sync, and not one
// that was started behind that.
func TestRebuilt(t *testing.T) {
	w := newWorld(t)
	w.rows = []model.VM{vm(1, 0), vm(1, 1), vm(1, 2)}
	w.rows[2].State = model.Failed
	w.sync()
	w.must(w.Close(t.Context(), w.rows[1]))
	w.must(w.open(t.Context(), w.rows[1]))
	if got := w.Rebuilt(); !slices.Equal(got, []ipam.Slot{0}) {
		t.Errorf("rebuilt: %v", got)
	}
	if got := w.Rebuilt(); len(got) != 0 {
		t.Errorf("told twice: %v", got)
	}
}

// TestRebuiltHalf: a TAP that a Sync began to make, and could not take back when it
// failed, counts as made anew when the next one has completed it.
func TestRebuiltHalf(t *testing.T) {
	w := newWorld(t)
	w.rows = []model.VM{vm(1, 0)}
	broken := errors.New("broken on purpose")
	w.kernel.Fail = func(op string) error {
		if op != "create zvm0" {
			return nil
		}
		_ = w.kernel.AddLink(host.Link{Name: "zvm0", Kind: host.KindTAP, Group: model.GroupUnassigned}) // the second try finds it
		return broken
	}
	if _, err := w.Sync(t.Context()); !errors.Is(err, broken) {
		t.Fatalf("error %v", err)
	}
	if got := w.Rebuilt(); len(got) != 0 {
		t.Errorf("rebuilt before it was whole: %v", got)
	}
	w.kernel.Fail = nil
	w.sync()
	if got := w.Rebuilt(); !slices.Equal(got, []ipam.Slot{0}) {
		t.Errorf("rebuilt: %v", got)
	}
}

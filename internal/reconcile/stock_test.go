package reconcile_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"zwrm/internal/firewall/firewalltest"
	"zwrm/internal/host"
	"zwrm/internal/host/hosttest"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
)

// newStock is a world in which so many TAPs are made ahead, of slots from 5 on.
func newStock(t *testing.T, size int) *world {
	t.Helper()
	w := newWorldWith(t, size, hosttest.NewFake(), firewalltest.NewKernel())
	w.sync()
	for slot := range ipam.Slot(size) {
		if ready, err := w.Prepare(t.Context(), 5+slot); !ready || err != nil {
			t.Fatalf("prepare slot %d: %t, %v", 5+slot, ready, err)
		}
	}
	return w
}

// stock checks which spare TAPs there are in memory and in the kernel.
func (w *world) stock(want ...ipam.Slot) {
	w.t.Helper()
	links, err := w.kernel.Links(context.Background())
	w.must(err)
	var found []ipam.Slot
	for _, link := range links {
		if slot, ok := ipam.ParseTAP(link.Name); ok && link.Alias == plan.SpareAlias && link.Group == model.GroupUnassigned && link.Up {
			found = append(found, slot)
		}
	}
	slices.Sort(found)
	ready, _ := w.Spares()
	if !slices.Equal(ready, want) || !slices.Equal(found, want) {
		w.t.Errorf("spare TAPs in memory %v, in the kernel %v, want %v", ready, found, want)
	}
}

// find returns a link, and named all that begin so.
func (w *world) find(name string) host.Link {
	w.t.Helper()
	links, err := w.kernel.LinksNamed(context.Background(), name)
	w.must(err)
	if len(links) != 1 {
		w.t.Fatalf("links called %q: %v", name, links)
	}
	return links[0]
}

func (w *world) named(prefix string) (names []string) {
	w.t.Helper()
	links, err := w.kernel.Links(context.Background())
	w.must(err)
	for _, link := range links {
		if strings.HasPrefix(link.Name, prefix) {
			names = append(names, link.Name)
		}
	}
	return names
}

// since returns what was done to the kernel since a call of Journal.
func (w *world) since(before []string) []string { return w.kernel.Journal()[len(before):] }

// inSync checks that there is nothing to mend.
func (w *world) inSync() {
	w.t.Helper()
	if findings, err := w.Check(context.Background()); err != nil || len(findings) > 0 {
		w.t.Errorf("differences: %v, %v", findings, err)
	}
}

func TestSpareIsHandedOut(t *testing.T) {
	w := newStock(t, 2)
	w.stock(5, 6)
	w.inSync()
	if ready, err := w.Prepare(t.Context(), 7); ready || err != nil {
		t.Errorf("one more than there is room for: %t, %v", ready, err)
	}
	w.rows = []model.VM{vm(1, 5)}
	before := w.kernel.Journal()
	w.must(w.open(t.Context(), w.rows...))
	if got := w.since(before); !slices.Equal(got, []string{"group zvm5 0x5a000001"}) {
		t.Errorf("done: %q", got)
	}
	w.stock(6)
	w.inSync()
	if _, lack := w.Spares(); lack != 1 {
		t.Errorf("%d lack", lack)
	}
	for _, slot := range []ipam.Slot{5, 6} {
		if ready, err := w.Prepare(t.Context(), slot); ready || err != nil {
			t.Errorf("slot %d is not free: %t, %v", slot, ready, err)
		}
	}
}

// TestSparesOutliveZwrmd: the next zwrmd takes them over as they are, but no more than
// it is to have.
func TestSparesOutliveZwrmd(t *testing.T) {
	w := newStock(t, 3)
	for _, size := range []int{3, 2, 0} {
		before := w.kernel.Journal()
		w = newWorldWith(t, size, w.kernel, w.rules)
		w.sync()
		w.stock([]ipam.Slot{5, 6, 7}[:size]...)
		w.inSync()
		if got := w.since(before); size == 3 && len(got) > 0 {
			t.Errorf("a start in sync did %q", got)
		}
	}
}

// TestSpoiledSpares: what somebody else has changed or opened is handed out to nobody.
func TestSpoiledSpares(t *testing.T) {
	w := newStock(t, 4)
	w.kernel.ChangeLink("zvm5", func(l *host.Link) { l.MTU = 1400 })
	w.kernel.ChangeLink("zvm6", func(l *host.Link) { l.Group = 0x5a000009 })
	w.kernel.RemoveLink("zvm7")
	vmm, err := w.kernel.OpenTAP("zvm8")
	w.must(err)
	w.kernel.ChangeLink("zvm8", func(l *host.Link) { l.Carrier = true })
	w.sync()
	if ready, lack := w.Spares(); len(ready) != 0 || lack != 4 {
		t.Errorf("ready are %v, and %d lack", ready, lack)
	}
	if got := w.Strays(); !slices.Equal(got, []ipam.Slot{8}) {
		t.Errorf("left alone: %v", got)
	}
	w.must(vmm.Close())
}

// TestSpareThatIsGone: a VM whose spare TAP somebody has deleted gets another.
func TestSpareThatIsGone(t *testing.T) {
	w := newStock(t, 2)
	w.kernel.RemoveLink("zvm5")
	w.rows = []model.VM{vm(1, 5), vm(1, 6)}
	w.must(w.open(t.Context(), w.rows...))
	if got := openLinks(w.kernel); !slices.Equal(got, []string{"zvm5", "zvm6"}) && !slices.Equal(got, []string{"zvm6", "zvm5"}) {
		t.Errorf("open: %v", got)
	}
	w.inSync()
}

// TestSpareIsGivenBack: an Open that fails leaves the stock as it was.
func TestSpareIsGivenBack(t *testing.T) {
	for _, op := range []string{"group zvm6 0x5a000001", "create zvm0"} {
		w := newStock(t, 2)
		before := w.text()
		broken := errors.New("broken on purpose")
		w.kernel.Fail = func(now string) error {
			if now == op {
				return broken
			}
			return nil
		}
		if err := w.open(t.Context(), vm(1, 5), vm(1, 6), vm(1, 0)); !errors.Is(err, broken) {
			t.Fatalf("%s: error %v", op, err)
		}
		w.stock(5, 6)
		if after := w.text(); after != before {
			t.Errorf("%s: there was\n%s\nand is\n%s", op, before, after)
		}
	}
}

// TestMade: what is made for VMs is closed, and nobody makes a spare TAP of it. When the
// VMs get no rows nothing is left of it.
func TestMade(t *testing.T) {
	w := newStock(t, 3)
	before := w.text()
	vms := []model.VM{vm(1, 5), vm(1, 0)}
	w.must(w.Make(t.Context(), vms...))
	if names := slices.Sorted(slices.Values(w.named("zvm"))); !slices.Equal(names, []string{"zvm0", "zvm5", "zvm6", "zvm7"}) {
		t.Errorf("made: %v", names)
	}
	if open := openLinks(w.kernel); len(open) > 0 {
		t.Errorf("open: %v", open)
	}
	for _, vm := range vms {
		if ready, err := w.Prepare(t.Context(), vm.Slot); ready || err != nil {
			t.Errorf("slot %d is made ahead although a VM has it: %t, %v", vm.Slot, ready, err)
		}
	}
	w.Unmake(vms...)
	w.stock(5, 6, 7)
	wait, err := w.Clean(t.Context())
	w.must(err)
	if after := w.text(); after != before || wait > 0 {
		t.Errorf("there was\n%s\nand is, with more to do in %s,\n%s", before, wait, after)
	}
	w.must(w.open(t.Context(), vms...))
	w.rows = vms
	w.inSync()
}

// TestLeftTAPs: of TAPs that VMs left as many become spare ones as lack, once they have
// rested, and the others go at once. Until then nobody takes them for drift.
func TestLeftTAPs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, 1, hosttest.NewFake(), firewalltest.NewKernel())
		w.rows = []model.VM{vm(1, 0), vm(1, 1)}
		w.sync()
		guest, elsewhere := netip.MustParseAddr("172.16.0.2"), netip.MustParseAddr("192.0.2.1")
		w.must(w.kernel.AddFlow(hosttest.Flow{Src: guest, Dst: elsewhere, ReplySrc: elsewhere, ReplyDst: guest}))
		gone := w.rows
		w.rows = nil
		w.must(w.Close(t.Context(), gone...))
		w.must(w.Reconciler.Remove(t.Context(), gone...))
		w.inSync()
		w.inSync()
		time.Sleep(200 * time.Millisecond)
		wait, err := w.Clean(t.Context())
		w.must(err)
		if names := w.named("zvm"); !slices.Equal(names, []string{"zvm0"}) || wait == 0 {
			t.Errorf("left are %v, to be seen to in %s", names, wait)
		}
		w.stock()
		w.inSync()
		w.clean()
		w.stock(0)
		w.inSync()
		if remembered, err := w.kernel.Remembered(); err != nil || len(remembered) > 0 {
			t.Errorf("remembered: %v, %v", remembered, err)
		}
	})
}

// TestLeftTAPIsOpen: a TAP that the VMM of a VM that is gone still has open goes.
func TestLeftTAPIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, 1, hosttest.NewFake(), firewalltest.NewKernel())
		w.rows = []model.VM{vm(1, 0)}
		w.sync()
		vmm, err := w.kernel.OpenTAP("zvm0")
		w.must(err)
		gone := w.rows
		w.rows = nil
		w.must(w.Close(t.Context(), gone...))
		w.must(w.Reconciler.Remove(t.Context(), gone...))
		time.Sleep(time.Minute)
		_, err = w.Clean(t.Context())
		w.must(err)
		w.stock()
		if names := w.named("zvm"); len(names) > 0 {
			t.Errorf("left are %v", names)
		}
		w.must(vmm.Close())
	})
}

// TestNextOwner: a VM that gets a slot before it was cleaned gets a TAP of its own.
func TestNextOwner(t *testing.T) {
	w := newWorld(t)
	w.rows = []model.VM{vm(1, 0)}
	w.sync()
	first := w.find("zvm0").Index
	gone := w.rows
	w.must(w.Close(t.Context(), gone...))
	w.must(w.Reconciler.Remove(t.Context(), gone...))
	next := vm(2, 0)
	next.State = model.Pending
	w.rows = []model.VM{next}
	w.must(w.open(t.Context(), next))
	if l := w.find("zvm0"); l.Index == first || l.Group != model.AppID(2).Group() {
		t.Errorf("link is %+v, and was %d", l, first)
	}
	if _, err := w.Clean(t.Context()); err != nil || w.find("zvm0").Group != model.AppID(2).Group() {
		t.Errorf("cleaned away, %v", err)
	}
}

// TestShutdownTakesSpares: a clean stop leaves the TAPs of VMs, and no others.
func TestShutdownTakesSpares(t *testing.T) {
	w := newStock(t, 2)
	w.rows = []model.VM{vm(1, 0)}
	w.must(w.open(t.Context(), w.rows...))
	w.must(w.Shutdown(t.Context()))
	if names := w.named("zvm"); !slices.Equal(names, []string{"zvm0"}) {
		t.Errorf("left are %v", names)
	}
}

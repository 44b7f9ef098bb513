package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"zwrm/internal/config"
	"zwrm/internal/event"
	"zwrm/internal/firewall"
	"zwrm/internal/firewall/firewalltest"
	"zwrm/internal/host"
	"zwrm/internal/host/hosttest"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
	"zwrm/internal/reconcile"
)

// openLinks returns the TAPs that are up and in the group of an app.
func openLinks(kernel *hosttest.Fake) []string {
	links, err := kernel.Links(context.Background())
	if err != nil {
		return []string{err.Error()}
	}
	var open []string
	for _, link := range links {
		if link.Up && link.Group.Ours() && link.Group != model.GroupUnassigned {
			open = append(open, link.Name)
		}
	}
	return open
}

type world struct {
	*reconcile.Reconciler
	t      *testing.T
	kernel *hosttest.Fake
	rules  *firewalltest.Kernel
	events *event.Log
	asked  []string // operations on rules, and the links that were open then
	rows   []model.VM
}

func newWorld(t *testing.T) *world {
	t.Helper()
	kernel := hosttest.NewFake()
	return newWorldOn(t, kernel, firewalltest.NewKernel())
}

// Remove is Reconciler's, with what is done behind it.
func (w *world) Remove(ctx context.Context, vms ...model.VM) error {
	if err := w.Reconciler.Remove(ctx, vms...); err != nil {
		return err
	}
	w.clean()
	return nil
}

// clean cleans until there is nothing left to clean.
func (w *world) clean() {
	w.t.Helper()
	for {
		wait, err := w.Clean(context.Background())
		w.must(err)
		if wait == 0 {
			return
		}
		time.Sleep(wait)
	}
}

// newWorldOn is a start on a kernel that is there already.
func newWorldOn(t *testing.T, kernel *hosttest.Fake, rules *firewalltest.Kernel) *world {
	t.Helper()
	return newWorldWith(t, 0, kernel, rules)
}

// newWorldWith is newWorldOn with so many TAPs that are to be made ahead.
func newWorldWith(t *testing.T, pool int, kernel *hosttest.Fake, rules *firewalltest.Kernel) *world {
	t.Helper()
	cfg, err := config.Parse(fmt.Sprintf("[network]\npool = %d\n[network.bridge]\nenabled = true\n", pool), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, kernel: kernel, rules: rules, events: &event.Log{}}
	rules.Fail = func(op string) error {
		if op != "diff" {
			w.asked = append(w.asked, op+" with links "+strings.Join(openLinks(kernel), " "))
		}
		return nil
	}
	w.Reconciler = reconcile.New(cfg.Network, plan.Uplink{Name: "eth0", MTU: 1500},
		reconcile.Kernel{Links: kernel, Settings: kernel, Firewall: rules.Open()},
		func(_ context.Context, slots ...ipam.Slot) ([]model.VM, error) {
			return slices.DeleteFunc(slices.Clone(w.rows), func(vm model.VM) bool { return len(slots) > 0 && !slices.Contains(slots, vm.Slot) }), nil
		},
		w.events, slog.New(slog.DiscardHandler))
	return w
}

func vm(app model.AppID, slot ipam.Slot) model.VM {
	name := model.Name("app" + string(rune('a'+app)))
	return model.VM{ID: model.VMID(slot + 1), App: app, AppName: name, Name: name.VMName(int(slot)), Slot: slot, State: model.Running}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) sync() []firewall.Difference {
	w.t.Helper()
	findings, err := w.Sync(w.t.Context())
	w.must(err)
	return findings
}

// open makes and opens the networks of VMs, as a deploy does.
func (w *world) open(ctx context.Context, vms ...model.VM) error {
	if err := w.Make(ctx, vms...); err != nil {
		return err
	}
	return w.Open(ctx, vms...)
}

func (w *world) text() string {
	return w.rules.Dump() + w.kernel.Dump()
}

// TestBothPathsAgree takes the short path through opens and removals, and
// compares each state with what the full path makes of the same rows.
func TestBothPathsAgree(t *testing.T) {
	short := newWorld(t)
	short.sync()
	ctx := t.Context()
	compare := func(rows ...model.VM) {
		t.Helper()
		short.rows = rows
		full := newWorld(t)
		full.rows = rows
		full.sync()
		if a, b := short.text(), full.text(); a != b {
			t.Fatalf("%d VMs, short path:\n%s\nfull path:\n%s", len(rows), a, b)
		}
		if findings := short.sync(); len(findings) != 0 {
			t.Fatalf("%d VMs: the full path finds %v", len(rows), findings)
		}
	}
	a0, a1, b0, a2 := vm(1, 0), vm(1, 1), vm(2, 2), vm(1, 3)
	short.must(short.open(ctx, a0))
	compare(a0)
	short.must(short.open(ctx, a1, b0))
	compare(a0, a1, b0)
	short.must(short.open(ctx, a2))
	compare(a0, a1, b0, a2)
	b1 := vm(2, 4)
	short.must(short.open(ctx, b1))
	failed := b1
	failed.State = model.Failed
	short.must(short.Close(ctx, b1))
	compare(a0, a1, b0, a2, failed)
	short.must(short.open(ctx, b1))
	compare(a0, a1, b0, a2, b1)
	short.must(short.Close(ctx, b1))
	short.must(short.Remove(ctx, b1))
	gone := []model.VM{a0, a1}
	short.must(short.Close(ctx, gone...))
	closing := slices.Clone(gone)
	for i := range closing {
		closing[i].State = model.Stopping
	}
	short.rows = append(closing, b0, a2)
	short.must(short.Remove(ctx, gone...))
	compare(b0, a2)
	short.must(short.Close(ctx, b0, a2))
	short.must(short.Remove(ctx, b0, a2))
	compare()
}

// TestOpenSetsGroupLast proves the order that lets nothing through early: link,
// rule, group.
func TestOpenSetsGroupLast(t *testing.T) {
	w := newWorld(t)
	w.sync()
	start := len(w.kernel.Journal())
	w.must(w.open(t.Context(), vm(1, 0), vm(1, 1)))
	ops := w.kernel.Journal()[start:]
	want := []string{"create zvm0", "create zvm1", "group zvm0 0x5a000001", "group zvm1 0x5a000001"}
	if !slices.Equal(ops, want) {
		t.Errorf("operations %q, want %q", ops, want)
	}
	if got := w.asked[len(w.asked)-1]; got != "add appb with links " {
		t.Errorf("%q: a link was open before its app's rule stood", got)
	}
}

// TestLatePacketIsForgotten: a packet that was let through just before the link was
// closed notes its connection behind the first look for such. Nothing is remembered
// of a guest when its network is removed, and nothing is while its link still stands.
func TestLatePacketIsForgotten(t *testing.T) {
	w := newWorld(t)
	w.sync()
	late := hosttest.Flow{Src: netip.MustParseAddr("172.16.0.2"), Dst: netip.MustParseAddr("192.0.2.1"),
		ReplySrc: netip.MustParseAddr("192.0.2.1"), ReplyDst: netip.MustParseAddr("203.0.113.7")}
	for name, remove := range map[string]func() error{
		"a VM": func() error { return w.Remove(t.Context(), vm(1, 0)) },
		"an orphan": func() error {
			_, err := w.Sync(t.Context())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.must(w.open(t.Context(), vm(1, 0)))
			w.must(w.kernel.AddFlow(late))
			w.kernel.Fail = func(op string) error {
				if op != "delete zvm0" {
					return nil
				}
				if left, err := w.kernel.Remembered(); err != nil || len(left) > 0 {
					t.Errorf("the link goes, and there is %v (%v)", left, err)
				}
				return w.kernel.AddFlow(late)
			}
			w.must(w.Close(t.Context(), vm(1, 0)))
			w.must(remove())
			if left, err := w.kernel.Remembered(); err != nil || len(left) > 0 {
				t.Errorf("remembered: %v (%v)", left, err)
			}
		})
	}
}

func TestShutdownClosesBeforeRulesGo(t *testing.T) {
	w := newWorld(t)
	w.rows = []model.VM{vm(1, 0), vm(1, 1)}
	w.sync()
	w.must(w.Shutdown(t.Context()))
	if got := w.asked[len(w.asked)-1]; got != "remove all with links " {
		t.Errorf("%q: a link was open when the rules went", got)
	}
	links, err := w.kernel.Links(t.Context())
	w.must(err)
	for _, link := range links {
		if link.Name == "zwrmd0" || link.Up && link.Group.Ours() {
			t.Errorf("left up: %+v", link)
		}
	}
	w.sync()
	if got := openLinks(w.kernel); !slices.Equal(got, []string{"zvm0", "zvm1"}) {
		t.Errorf("open after the next start: %v", got)
	}
}

// TestShutdownKeepsRulesOfOpenLinks: when a link cannot be closed the rules stay.
func TestShutdownKeepsRulesOfOpenLinks(t *testing.T) {
	w := newWorld(t)
	w.rows = []model.VM{vm(1, 0)}
	w.sync()
	broken := errors.New("broken on purpose")
	w.kernel.Fail = func(op string) error {
		if strings.HasPrefix(op, "group") {
			return broken
		}
		return nil
	}
	if err := w.Shutdown(t.Context()); !errors.Is(err, broken) {
		t.Fatalf("error %v", err)
	}
	if len(w.rules.Rules()) == 0 {
		t.Error("the rules are gone, and a link is open")
	}
}

func TestRepair(t *testing.T) {
	change := func(name string, f func(*host.Link)) func(*world) {
		return func(w *world) {
			if !w.kernel.ChangeLink(name, f) {
				w.t.Fatalf("no link %q", name)
			}
		}
	}
	tests := []struct {
		name  string
		drift func(w *world)
		want  string // the finding
	}{
		{"TAP deleted", func(w *world) { w.kernel.RemoveLink("zvm0") }, "link zvm0: wanted tap in group 0x5a000001 with inet 172.16.0.1/30, found missing"},
		{"TAP down", change("zvm0", func(l *host.Link) { l.Up = false }), "link zvm0: wanted up, found down"},
		{"TAP in another app's group", change("zvm0", func(l *host.Link) { l.Group = 0x5a000002 }), "link zvm0: wanted group 0x5a000001, found group 0x5a000002"},
		{"TAP unassigned", change("zvm1", func(l *host.Link) { l.Group = model.GroupUnassigned }), "link zvm1: wanted group 0x5a000001, found group 0x5a000000"},
		{"MTU", change("zvm1", func(l *host.Link) { l.MTU = 1400 }), "link zvm1: wanted mtu 1500, found mtu 1400"},
		{"MAC", change("zvm1", func(l *host.Link) { l.MAC = ipam.MAC{2} }), "link zvm1: wanted address 02:5a:ff:ff:ff:fe, found address 02:00:00:00:00:00"},
		{"address removed", change("zvm1", func(l *host.Link) { l.Addresses = nil }), "link zvm1: wanted inet 172.16.0.5/30, found inet none"},
		{"address added", change("zvm1", func(l *host.Link) {
			l.Addresses = append(l.Addresses, netip.MustParsePrefix("192.0.2.1/32"))
		}), "link zvm1: wanted inet 172.16.0.5/30, found inet 172.16.0.5/30, 192.0.2.1/32"},
		{"setting", func(w *world) { w.must(w.kernel.SetSysctl("net/ipv4/conf/zvm1/rp_filter", "0")) },
			"link zvm1: wanted the settings of a TAP, found net.ipv4.conf.zvm1.rp_filter = 0, not 1"},
		{"bridge deleted", func(w *world) { w.kernel.RemoveLink("zwrmd0") }, "bridge zwrmd0: wanted up with inet 10.0.0.1/16, found missing"},
		{"bridge down", change("zwrmd0", func(l *host.Link) { l.Up = false }), "bridge zwrmd0: wanted up with inet 10.0.0.1/16, found down"},
		{"bridge of an earlier configuration", func(w *world) {
			w.must(w.kernel.EnsureBridge(w.t.Context(), "old0", netip.MustParsePrefix("10.1.0.1/16"), plan.BridgeAlias))
		}, "bridge old0: wanted no such bridge, found one that an earlier configuration had"},
		{"forwarding off", func(w *world) { w.must(w.kernel.SetSysctl("net/ipv4/ip_forward", "0")) }, "sysctl net/ipv4/ip_forward: wanted 1, found 0"},
		{"rule removed", func(w *world) { w.rules.Change(func(rules []firewall.Rule) []firewall.Rule { return rules[1:] }) }, "found missing"},
		{"TAP of no VM", func(w *world) {
			w.must(w.kernel.AddLink(host.Link{Name: "zvm9", Kind: host.KindTAP, Group: 0x5a000001, Up: true}))
		}, "link zvm9: wanted no link: no VM has this slot, found link in group 0x5a000001"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.rows = []model.VM{vm(1, 0), vm(1, 1)}
			w.sync()
			before := w.text()
			test.drift(w)
			findings, err := w.Repair(t.Context())
			w.must(err)
			var found []string
			for _, f := range findings {
				found = append(found, f.Object+": wanted "+f.Wanted+", found "+f.Found)
			}
			if text := strings.Join(found, "\n"); !strings.Contains(text, test.want) {
				t.Errorf("found %q, want %q", text, test.want)
			}
			if got := w.text(); got != before {
				t.Errorf("mended:\n%s\nbefore:\n%s", got, before)
			}
			if h := w.History(); h.Drift != len(findings) || h.Last == nil {
				t.Errorf("history is %+v", h)
			}
			if findings, err := w.Check(t.Context()); err != nil || len(findings) != 0 {
				t.Errorf("after the repair: %v, %v", findings, err)
			}
		})
	}
}

// TestForeignLinkIsReportedOnly: a link with our prefix in no group of ours is not
// ours to touch.
func TestForeignLinkIsReportedOnly(t *testing.T) {
	w := newWorld(t)
	w.sync()
	w.must(w.kernel.AddLink(host.Link{Name: "zvm5", Kind: host.KindTAP, Up: true}))
	before := w.kernel.Dump()
	if findings := w.sync(); len(findings) != 0 {
		t.Errorf("mended %v", findings)
	}
	findings, err := w.Check(t.Context())
	if w.must(err); len(findings) != 1 || findings[0].Object != "link zvm5" {
		t.Errorf("findings %v", findings)
	}
	if got := w.kernel.Dump(); got != before {
		t.Errorf("changed:\n%s\nbefore:\n%s", got, before)
	}
}

// TestStartInSync: a start on a kernel that is as it should be writes nothing, and
// apps come and go as after any other.
func TestStartInSync(t *testing.T) {
	earlier := newWorld(t)
	earlier.rows = []model.VM{vm(1, 0), vm(1, 1)}
	earlier.sync()
	w := newWorldOn(t, earlier.kernel, earlier.rules)
	w.rows = earlier.rows
	before, ops := w.text(), len(w.kernel.Journal())
	if findings := w.sync(); len(findings) != 0 {
		t.Errorf("findings %v", findings)
	}
	if got := w.kernel.Journal()[ops:]; len(got) != 0 || w.text() != before {
		t.Errorf("operations %q, and now there is\n%s", got, w.text())
	}
	w.must(w.open(t.Context(), vm(2, 2), vm(2, 3)))
	w.must(w.Close(t.Context(), vm(2, 2), vm(2, 3)))
	w.must(w.Remove(t.Context(), vm(2, 2), vm(2, 3)))
	if got := w.text(); got != before {
		t.Errorf("now there is\n%s\nand was\n%s", got, before)
	}
}

// TestSyncInSyncWritesNothing: once the network stands, a comparison that finds
// nothing writes nothing.
func TestSyncInSyncWritesNothing(t *testing.T) {
	w := newWorld(t)
	w.rows = []model.VM{vm(1, 0), vm(1, 1), vm(2, 2)}
	w.sync()
	ops, applied := len(w.kernel.Journal()), len(w.asked)
	if findings := w.sync(); len(findings) != 0 {
		t.Errorf("findings %v", findings)
	}
	if got := w.kernel.Journal()[ops:]; len(got) != 0 {
		t.Errorf("operations %q", got)
	}
	if got := w.asked[applied:]; len(got) != 0 {
		t.Errorf("rules %q", got)
	}
}

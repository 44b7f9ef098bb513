package iptables

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"zwrm/internal/firewall"
	"zwrm/internal/model"
)

func TestAppsBeforeApply(t *testing.T) {
	d := newFake().open(t)
	for name, err := range map[string]error{
		"AddApps": d.AddApps(t.Context(), app(1, "db")), "RemoveApps": d.RemoveApps(t.Context(), app(1, "db")),
	} {
		if !errors.Is(err, firewall.ErrNotApplied) {
			t.Errorf("%s: error %v, want ErrNotApplied", name, err)
		}
	}
	if err := d.Apply(t.Context(), policy(nil)); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.AddApps(t.Context(), app(1, "db")); !errors.Is(err, firewall.ErrNotApplied) {
		t.Errorf("after Remove: error %v, want ErrNotApplied", err)
	}
}

// appStep is one change of the apps of a Dataplane that has db (1) and web (2).
type appStep struct {
	name   string
	damage string // what somebody else does before
	add    []firewall.App
	remove []firewall.App
	ran    string
	want   []firewall.App
}

const (
	one    = "iptables-restore"
	look   = "iptables-save ip6tables-save"
	mended = "iptables-restore iptables-save ip6tables-save iptables-restore"
)

func appSteps() []appStep {
	db, web, new1, new2 := app(1, "db"), app(2, "web"), app(3, "new"), app(4, "newer")
	return []appStep{
		{name: "one more", add: []firewall.App{new1}, ran: one, want: []firewall.App{db, web, new1}},
		{name: "two more", add: []firewall.App{new1, new2}, ran: one, want: []firewall.App{db, web, new1, new2}},
		{name: "one that is there", add: []firewall.App{db}, want: []firewall.App{db, web}},
		{name: "one that is there and one more", add: []firewall.App{db, new1}, ran: one, want: []firewall.App{db, web, new1}},
		{name: "the same twice", add: []firewall.App{new1, new1}, ran: one, want: []firewall.App{db, web, new1}},
		{name: "none", want: []firewall.App{db, web}},
		{name: "another name", add: []firewall.App{app(1, "database")}, ran: one, want: []firewall.App{app(1, "database"), web}},
		{name: "one less", remove: []firewall.App{db}, ran: one, want: []firewall.App{web}},
		{name: "both less", remove: []firewall.App{db, web}, ran: one},
		{name: "one that is not there", remove: []firewall.App{new1}, want: []firewall.App{db, web}},
		{name: "one less that is gone", damage: "-D ZWRM-PRIVATE " + ruleDB, remove: []firewall.App{db},
			ran: "iptables-restore " + look, want: []firewall.App{web}},
		{name: "one less in a flushed chain", damage: "-F ZWRM-PRIVATE", remove: []firewall.App{db}, ran: mended, want: []firewall.App{web}},
		{name: "one more without a chain", damage: "-F ZWRM-FORWARD\n-F ZWRM-PRIVATE\n-X ZWRM-PRIVATE",
			add: []firewall.App{new1}, ran: mended, want: []firewall.App{db, web, new1}},
	}
}

// TestChangeApps: one program for a change, none for what is so already, and a
// look at the kernel only when the change did not fit.
func TestChangeApps(t *testing.T) {
	for _, step := range appSteps() {
		t.Run(step.name, func(t *testing.T) {
			onEachKernel(t, func(t *testing.T, k *kernel) {
				d := k.applied(t, policy(nil))
				if step.damage != "" {
					k.restore(t, "iptables", "*filter\n"+step.damage+"\nCOMMIT\n")
					k.take()
				}
				if err := d.RemoveApps(t.Context(), step.remove...); err != nil {
					t.Fatal(err)
				}
				if err := d.AddApps(t.Context(), step.add...); err != nil {
					t.Fatal(err)
				}
				if got := k.take(); got != step.ran {
					t.Errorf("ran %q, want %q", got, step.ran)
				}
				if got := mustDiff(t, d, withApps(step.want...)); got != "" {
					t.Errorf("differences:\n%s", got)
				}
			})
		})
	}
}

// TestAppsAfterDrift: once Diff has seen that the kernel differs, the next change
// looks before it writes.
func TestAppsAfterDrift(t *testing.T) {
	k := newFake()
	d := k.applied(t, policy(nil))
	k.restore(t, "iptables", "*filter\n-F ZWRM-PRIVATE\nCOMMIT\n")
	if got := mustDiff(t, d, policy(nil)); got == "" {
		t.Error("Diff does not see the flushed chain")
	}
	k.take()
	if err := d.AddApps(t.Context(), app(1, "db")); err != nil {
		t.Fatal(err)
	}
	if got, want := k.take(), look+" "+one; got != want {
		t.Errorf("ran %q, want %q", got, want)
	}
	if got := mustDiff(t, d, policy(nil)); got != "" {
		t.Errorf("differences:\n%s", got)
	}
}

func TestAppsWithoutPrivateNetworking(t *testing.T) {
	k := newFake()
	off := policy(func(p *firewall.Policy) { p.Private = false })
	d := k.applied(t, off)
	if err := d.AddApps(t.Context(), app(3, "new")); err != nil {
		t.Error(err)
	}
	if err := d.RemoveApps(t.Context(), app(1, "db")); err != nil {
		t.Error(err)
	}
	if got := k.take(); got != "" {
		t.Errorf("ran %q, want nothing", got)
	}
}

// TestFailedChangeOfApps: a change that fails counts as not made, and the next
// one mends what it left.
func TestFailedChangeOfApps(t *testing.T) {
	k := newFake()
	d := k.applied(t, policy(nil))
	broken := errors.New("line 2 failed")
	k.fail = func(program string) error {
		if strings.HasSuffix(program, "-restore") {
			return broken
		}
		return nil
	}
	if err := d.AddApps(t.Context(), app(3, "new")); !errors.Is(err, broken) {
		t.Errorf("AddApps: error %v, want %v", err, broken)
	}
	k.fail = nil
	if err := d.AddApps(t.Context(), app(4, "newer")); err != nil {
		t.Fatal(err)
	}
	if got := mustDiff(t, d, withApps(app(1, "db"), app(2, "web"), app(4, "newer"))); got != "" {
		t.Errorf("differences:\n%s", got)
	}
}

// TestConcurrentApps: fifty deploys and destroys at once, of apps of their own and
// of one that all share, leave what the last word of each was.
func TestConcurrentApps(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		d := k.applied(t, withApps())
		shared := app(1000, "shared")
		var want []firewall.App
		var group sync.WaitGroup
		for i := range 50 {
			own := app(model.AppID(i+1), model.Name(fmt.Sprintf("app-%d", i)))
			if i%2 == 0 {
				want = append(want, own)
			}
			group.Go(func() {
				err := errors.Join(d.AddApps(t.Context(), own, shared), d.RemoveApps(t.Context(), shared))
				if i%2 != 0 {
					err = errors.Join(err, d.RemoveApps(t.Context(), own))
				}
				if err != nil {
					t.Error(err)
				}
			})
			if i%10 == 0 {
				group.Go(func() {
					if _, err := d.Diff(t.Context(), withApps()); err != nil {
						t.Error(err)
					}
				})
			}
		}
		group.Wait()
		if got := mustDiff(t, d, withApps(want...)); got != "" {
			t.Errorf("differences:\n%s", got)
		}
	})
}

package nftables

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"zwrm/internal/firewall"
	"zwrm/internal/model"
)

// TestAppsOneByOne: adding and removing apps leaves just what Apply would have
// made, with one transaction for each call that changes something.
func TestAppsOneByOne(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d := applied(t, withApps(nil))
		db, web := app("db", 1), app("web", 2)
		steps := []struct {
			name   string
			change func() error
			want   []firewall.App
			writes uint32
		}{
			{"add two", func() error { return d.AddApps(t.Context(), db, web) }, []firewall.App{db, web}, 1},
			{"add them again", func() error { return d.AddApps(t.Context(), db, web) }, []firewall.App{db, web}, 0},
			{"remove one", func() error { return d.RemoveApps(t.Context(), db) }, []firewall.App{web}, 1},
			{"remove it again", func() error { return d.RemoveApps(t.Context(), db) }, []firewall.App{web}, 0},
			{"one that was never there among others", func() error { return d.RemoveApps(t.Context(), app("no", 9), web) }, nil, 1},
			{"nothing", func() error { return errors.Join(d.AddApps(t.Context()), d.RemoveApps(t.Context())) }, nil, 0},
			{"twice in one call", func() error { return d.AddApps(t.Context(), db, db) }, []firewall.App{db}, 1},
			{"renamed", func() error { return d.AddApps(t.Context(), app("sql", 1)) }, []firewall.App{app("sql", 1)}, 1},
		}
		for _, step := range steps {
			before := generation(t, d)
			if err := step.change(); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			if n := generation(t, d) - before; n != step.writes {
				t.Errorf("%s: %d transactions, want %d", step.name, n, step.writes)
			}
			if got := mustDiff(t, d, withApps(step.want)); got != "" {
				t.Errorf("%s: differences:\n%s", step.name, got)
			}
		}
	})
}

func TestAppsBeforeApply(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d := mustOpen(t)
		refused := func(when string) {
			t.Helper()
			for name, err := range map[string]error{"AddApps": d.AddApps(t.Context(), app("db", 1)), "RemoveApps": d.RemoveApps(t.Context(), app("db", 1))} {
				if !errors.Is(err, firewall.ErrNotApplied) {
					t.Errorf("%s %s: %v, want ErrNotApplied", name, when, err)
				}
			}
		}
		refused("before Apply")
		mustApply(t, d, policy(nil))
		if err := d.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		refused("after Remove")
	})
}

func TestAppsWithoutPrivateNetworking(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		off := policy(func(p *firewall.Policy) { p.Private = false })
		d := applied(t, off)
		before := generation(t, d)
		if err := errors.Join(d.AddApps(t.Context(), app("db", 1)), d.RemoveApps(t.Context(), app("db", 1))); err != nil {
			t.Error(err)
		}
		if after := generation(t, d); after != before {
			t.Errorf("%d transactions were made", after-before)
		}
		if got := mustDiff(t, d, off); got != "" {
			t.Errorf("differences:\n%s", got)
		}
	})
}

// TestAppsMend: a change of apps that finds the table changed by others mends it
// on the way.
func TestAppsMend(t *testing.T) {
	tests := []struct{ name, change string }{
		{"element to remove is gone", "delete element inet zwrm same_app { 0x5a000001 . 0x5a000001 }"},
		{"element to add is there", "add element inet zwrm same_app { 0x5a000003 . 0x5a000003 }"},
		{"set is gone", "delete rule inet zwrm forward handle SAME\ndelete set inet zwrm same_app"},
		{"everything is gone", "flush ruleset"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onOwnKernel(t, func(t *testing.T) {
				d := unprotected(t)
				mustApply(t, d, policy(nil))
				if out, err := tryNFT(t, strings.ReplaceAll(test.change, "SAME", sameHandle(t))+"\n", "-f", "-"); err != nil {
					t.Fatalf("nft: %v\n%s", err, out)
				}
				if err := d.RemoveApps(t.Context(), app("db", 1)); err != nil {
					t.Fatal(err)
				}
				if err := d.AddApps(t.Context(), app("new", 3)); err != nil {
					t.Fatal(err)
				}
				if got := mustDiff(t, d, withApps([]firewall.App{app("web", 2), app("new", 3)})); got != "" {
					t.Errorf("differences:\n%s", got)
				}
			})
		})
	}
}

// TestManyApps: all apps are there, whether they came at once, in batches or one
// by one. nft counts them, too.
func TestManyApps(t *testing.T) {
	const n = 5000
	all := manyApps(n)
	inChunks := func(size int) func(t *testing.T, d *Dataplane) {
		return func(t *testing.T, d *Dataplane) {
			mustApply(t, d, withApps(nil))
			for i := 0; i < n; i += size {
				if err := d.AddApps(t.Context(), all[i:min(i+size, n)]...); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for name, fill := range map[string]func(t *testing.T, d *Dataplane){
		"by Apply":                func(t *testing.T, d *Dataplane) { mustApply(t, d, withApps(all)) },
		"by one AddApps":          inChunks(n),
		"by AddApps of 1000 each": inChunks(1000),
		"by AddApps of one each":  inChunks(1),
	} {
		t.Run(name, func(t *testing.T) {
			onOwnKernel(t, func(t *testing.T) {
				d := mustOpen(t)
				fill(t, d)
				if got := mustDiff(t, d, withApps(all)); got != "" {
					t.Errorf("differences:\n%.2000s", got)
				}
				if got := strings.Count(nft(t, "list", "set", "inet", "zwrm", "same_app"), "comment \"zwrm: app "); got != n {
					t.Errorf("nft finds %d elements, want %d", got, n)
				}
				if err := d.RemoveApps(t.Context(), all[1:]...); err != nil {
					t.Fatal(err)
				}
				if got := mustDiff(t, d, withApps(all[:1])); got != "" {
					t.Errorf("differences after RemoveApps:\n%.2000s", got)
				}
			})
		})
	}
}

// TestFullSet: as many apps as fit, with the longest names.
func TestFullSet(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		all := withApps(manyApps(setSize))
		d := applied(t, all)
		if got := mustDiff(t, d, all); got != "" {
			t.Errorf("differences:\n%.2000s", got)
		}
	})
}

// TestConcurrentUse: in the end just the apps are there that were added and not
// removed.
func TestConcurrentUse(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d := applied(t, withApps(nil))
		const callers, rounds = 8, 25
		var group sync.WaitGroup
		left := make([][]firewall.App, callers)
		for i := range callers {
			group.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(i)))
				has := map[model.AppID]firewall.App{}
				for range rounds {
					id := model.AppID(i*100 + random.IntN(10) + 1)
					a := app(model.Name(fmt.Sprintf("app-%d", id)), id)
					var err error
					if _, ok := has[id]; ok {
						delete(has, id)
						err = d.RemoveApps(t.Context(), a)
					} else {
						has[id] = a
						err = d.AddApps(t.Context(), a)
					}
					if err != nil {
						t.Error(err)
					}
					if random.IntN(5) == 0 {
						if _, err := d.Dump(t.Context()); err != nil {
							t.Error(err)
						}
					}
				}
				for _, a := range has {
					left[i] = append(left[i], a)
				}
			})
		}
		group.Wait()
		var want []firewall.App
		for _, apps := range left {
			want = append(want, apps...)
		}
		if got := mustDiff(t, d, withApps(want)); got != "" {
			t.Errorf("differences:\n%s", got)
		}
	})
}

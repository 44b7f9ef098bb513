package bench_test

import (
	"net/netip"
	"testing"
	"time"

	"zwrm/internal/firewall"
	"zwrm/internal/host/nstest"
	"zwrm/internal/model"
	"zwrm/test/bench/figures"
)

// rulebook is the rules of so many apps on one dataplane, in a namespace of its own.
type rulebook struct {
	dataplane
	ns     *nstest.Namespace
	policy firewall.Policy
}

func newRulebook(t testing.TB, on rules, apps int) *rulebook {
	t.Helper()
	b := &rulebook{ns: nstest.New(t), policy: policy(apps)}
	b.ns.Do(t, func() {
		b.dataplane = openDataplane(t, on)
		must(t, b.Apply(t.Context(), firewall.Build(b.policy)))
	})
	return b
}

// extra is the app that comes and goes.
func extra() firewall.App {
	return firewall.App{Name: "extra", Group: model.MaxAppID.Group()}
}

// do makes a change and returns how long it took, to the moment that the kernel is
// known to have it.
func (b *rulebook) do(t testing.TB, change figures.Change) (took time.Duration) {
	t.Helper()
	ctx := t.Context()
	b.ns.Do(t, func() {
		var err error
		start := time.Now()
		switch change {
		case figures.Add:
			err = b.AddApps(ctx, extra())
		case figures.Remove:
			err = b.RemoveApps(ctx, extra())
		case figures.Rebuild:
			b.policy.EgressDeny = otherThan(b.policy.EgressDeny)
			start = time.Now()
			err = b.Apply(ctx, firewall.Build(b.policy))
		}
		took = time.Since(start)
		must(t, err)
	})
	return took
}

// otherThan returns networks that are denied instead, so that the rules differ.
func otherThan(denied []netip.Prefix) []netip.Prefix {
	if len(denied) > 0 {
		return nil
	}
	return []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")}
}

// check compares the kernel with what the changes should have led to.
func (b *rulebook) check(t testing.TB, added ...firewall.App) {
	t.Helper()
	want := b.policy
	want.Apps = append(want.Apps[:len(want.Apps):len(want.Apps)], added...)
	b.ns.Do(t, func() {
		differences, err := b.Diff(t.Context(), firewall.Build(want))
		must(t, err)
		if len(differences) > 0 {
			t.Fatalf("%d differences, the first: %v", len(differences), differences[0])
		}
	})
}

// timeChanges makes changes of each dataplane's rules with each number of apps, in
// turn, and returns how long each took, by row and number.
func timeChanges(t testing.TB, sizes []int, rounds int, changes ...figures.Change) map[string][][]time.Duration {
	t.Helper()
	took := map[string][][]time.Duration{}
	books := map[rules][]*rulebook{}
	for _, on := range []rules{onNftables, onIptables} {
		for _, n := range sizes {
			books[on] = append(books[on], newRulebook(t, on, n))
		}
		for _, change := range changes {
			took[figures.ChangeRow(string(on), change)] = make([][]time.Duration, len(sizes))
		}
	}
	for range rounds {
		for on, books := range books {
			for i, book := range books {
				for _, change := range changes {
					row := took[figures.ChangeRow(string(on), change)]
					row[i] = append(row[i], book.do(t, change))
				}
			}
		}
	}
	for _, books := range books {
		for _, book := range books {
			book.check(t)
		}
	}
	return took
}

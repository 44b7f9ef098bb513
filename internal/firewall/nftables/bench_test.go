package nftables

import (
	"fmt"
	"testing"

	"zwrm/internal/firewall"
	"zwrm/internal/host/nstest"
)

// BenchmarkAddRemoveApp is the cost of one app's element, with others present.
func BenchmarkAddRemoveApp(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprintf("apps=%d", n), func(b *testing.B) {
			d := benchmarked(b, n)
			extra := app("extra", 1<<20)
			b.ReportAllocs()
			for b.Loop() {
				if err := d.AddApps(b.Context(), extra); err != nil {
					b.Fatal(err)
				}
				if err := d.RemoveApps(b.Context(), extra); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRebuild is the cost of making the whole table anew in the place of
// another, with reading it before and after.
func BenchmarkRebuild(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprintf("apps=%d", n), func(b *testing.B) {
			d := benchmarked(b, n)
			apps := manyApps(n)
			rules := []firewall.Ruleset{
				policy(func(p *firewall.Policy) { p.Apps, p.EgressDeny = apps, nil }),
				withApps(apps),
			}
			for i := 0; b.Loop(); i++ {
				if err := d.Apply(b.Context(), rules[i%2]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// benchmarked returns a Dataplane with n apps, in a namespace of its own.
func benchmarked(b *testing.B, n int) *Dataplane {
	b.Helper()
	var d *Dataplane
	nstest.New(b).Do(b, func() {
		var err error
		if d, err = Open(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
	})
	b.Cleanup(func() { d.Close() })
	if err := d.Apply(b.Context(), withApps(manyApps(n))); err != nil {
		b.Fatal(err)
	}
	return d
}

package bench_test

import (
	"flag"
	"testing"

	"zwrm/test/bench/figures"
)

var update = flag.Bool("update", false, "write the figures of a whole run of BenchmarkDataplanes into docs/dataplanes.md")

// Sizes of what is compared.
const (
	apps    = 1600
	pairs   = 16 // VMs that speak by their TAPs
	couples = 4  // of these, the ones that speak by guests, too
)

// BenchmarkDataplanes compares hosts that differ in their rules only. Each round is
// played on every one in turn; b.N is the number of rounds. With -update, docs/dataplanes.md
// gets the figures.
func BenchmarkDataplanes(b *testing.B) {
	r := &results{traffic: map[string]outcome{}, changes: map[string][]time.Duration{}, sizes: []int{10, 100, 1000, 10000}}
	b.Run("traffic", func(b *testing.B) {
		w := newWorld(b, apps, pairs, couples)
		for _, path := range []figures.Path{figures.ThroughHost, figures.GuestToGuest} {
			for _, metric := range []figures.Metric{figures.RoundTrip, figures.FirstPacket, figures.Connections} {
				b.Run(figures.TrafficRow(path, metric), func(b *testing.B) {
					r.rounds = b.N
					o := w.measure(b, path, metric, b.N)
					r.traffic[figures.TrafficRow(path, metric)] = o
					b.ReportMetric(0, "ns/op")
					b.ReportMetric(float64(o.plain), "plain-ns")
					for with, x := range o.ratios {
						b.ReportMetric(x.median, "x-"+string(with))
					}
				})
			}
		}
	})
	b.Run("rules", func(b *testing.B) {
		for _, changes := range [][]figures.Change{{figures.Add, figures.Remove}, {figures.Rebuild}} {
			for row, took := range timeChanges(b, r.sizes, 50, changes...) {
				for _, t := range took {
					r.changes[row] = append(r.changes[row], median(t))
				}
			}
		}
		b.ReportMetric(0, "ns/op")
	})
	text, err := r.text()
	must(b, err)
	b.Log("\n" + text)
	if *update {
		must(b, write(text))
	}
}

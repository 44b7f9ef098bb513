package bench_test

import (
	"flag"
	"testing"
	"time"

	"zwrm/internal/host/nstest"
	"zwrm/test/bench/figures"
	"zwrm/test/page"
)

var update = flag.Bool("update", false, "BenchmarkDataplanes writes its figures into docs/dataplanes.md")

func TestMain(m *testing.M) { nstest.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// scale is the size of what is compared.
type scale struct {
	apps    int   // of hosts with traffic
	pairs   int   // of VMs that speak by their TAPs
	couples int   // of these, the ones that speak by guests, too
	sizes   []int // numbers of apps while rules are changed
}

// BenchmarkDataplanes compares hosts that differ in nothing but their rules: each round
// is played on every one, in turn. b.N is the number of rounds with packets; those in
// which rules change are a tenth of it.
func BenchmarkDataplanes(b *testing.B) {
	size := scale{apps: 1600, pairs: 16, couples: 4, sizes: []int{10, 100, 1000, 10000}}
	r := newResults(b, size)
	b.Run("packets", func(b *testing.B) {
		w := newWorld(b, size)
		for _, path := range figures.Paths() {
			for _, metric := range figures.Metrics() {
				row := figures.TrafficRow(path, metric)
				b.Run(row, func(b *testing.B) {
					r.traffic[row] = w.measure(b, path, metric, b.N)
					r.traffic[row].report(b)
				})
			}
		}
	})
	for _, changes := range [][]figures.Change{{figures.Add, figures.Remove}, {figures.Rebuild}} {
		b.Run(string(changes[0]), func(b *testing.B) {
			for row, took := range timeChanges(b, size.sizes, max(1, b.N/10), changes...) {
				r.changes[row] = medians(took)
			}
			b.ReportMetric(0, "ns/op") // of no meaning
		})
	}
	text, err := r.text()
	must(b, err)
	b.Log("\n" + text)
	if *update {
		must(b, page.Write(dataplanesPage, text))
	}
}

func newResults(t testing.TB, size scale) *results {
	t.Helper()
	r := &results{scale: size, traffic: map[string]outcome{}, changes: map[string][]time.Duration{}}
	nstest.New(t).Do(t, func() {
		var err error
		r.hardware, err = page.Hardware(openDataplane(t, onNftables).Version(), openDataplane(t, onIptables).Version())
		must(t, err)
	})
	return r
}

func (o outcome) report(b *testing.B) {
	b.ReportMetric(0, "ns/op") // of no meaning: it is that of all hosts together
	b.ReportMetric(float64(o.plain), "plain-ns")
	for with, x := range o.ratios {
		b.ReportMetric(x.median, "x-"+string(with))
	}
}

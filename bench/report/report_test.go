package report_test

import (
	"encoding/xml"
	"errors"
	"io"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"zwrm/bench/report"
)

// results returns those of a run in which the floor takes 1 ms and zwrmd some more.
func results(pool bool) *report.Results {
	r := &report.Results{Levels: []int{0, 16384}, PerApp: []int{10, 1}, Counts: []int{1, 1000}, Peers: 1000, Hardware: "a machine"}
	for _, present := range r.Levels {
		key := report.Key{Part: report.Growth, Measure: report.Attach, Present: present, PerApp: 10, Pool: pool, By: report.Floor}
		floor := []float64{1, 2, 1}
		r.Add(key, floor, nil)
		key.By = "nftables"
		r.Add(key, []float64{1.2, 2.4, 1.4}, floor)
		key.By = "iptables"
		r.Add(key, []float64{3, 6, 3}, floor)
	}
	key := report.Key{Part: report.Peers, Measure: report.Attach, Present: 1000, PerApp: 10, Pool: pool, By: "nftables"}
	r.Add(key, []float64{0.5}, []float64{0.5})
	key.By, key.Pool = report.CNIPtp, false
	r.Add(key, []float64{50}, []float64{0.5})
	r.Add(report.Key{Part: report.Whole, Measure: report.Restart, Present: 16384, By: "nftables"}, []float64{900, 1100, 1200}, nil)
	return r
}

// TestTargets: each is judged by the figure that it is about, and one that was not
// measured is not called reached.
func TestTargets(t *testing.T) {
	text := results(true).Text()
	for _, line := range []string{
		"| attach from the pool, at 16,384 VMs, to the floor's create | ≤ × 1.50 | × 1.20: reached | × 3.00: **missed** |",
		"| attach from the pool, at 16,384, where the disk syncs in 0.2 ms | ≤ 0.30 ms | 1.40 ms: **missed** | 3.00 ms: **missed** |",
		"| attach without the pool, at 0 | ≤ × 2.50 | not measured | not measured |",
		"| attach from the pool, at 16,384 to at 0 | ≤ × 1.50 | × 1.00: reached | × 1.00: reached |",
		"| attach at 1,000 against CNI ptp + host-local + firewall | ≥ 50 times as fast | 100 times as fast: reached | not measured |",
		"| restart with 16,384 in sync until ready | ≤ 1000 ms | 1100 ms: **missed** | not measured |",
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
	if text := results(false).Text(); !strings.Contains(text, "| attach without the pool, at 0 | ≤ × 2.50 | × 1.20: reached | × 3.00: **missed** |\n") {
		t.Errorf("without a pool:\n%s", text)
	}
	slow := results(true)
	slow.Add(report.Key{Part: report.Whole, Measure: report.Sync, By: "disk"}, []float64{1.5}, nil)
	if text := slow.Text(); !strings.Contains(text, "| ≤ 0.30 ms | 1.40 ms: the disk takes 1.50 ms |") {
		t.Errorf("with a slow disk:\n%s", text)
	}
}

func TestFigures(t *testing.T) {
	r := &report.Results{}
	key := report.Key{Part: report.Growth, Measure: report.Attach, By: "nftables"}
	var samples, floor []float64
	for i := range 200 { // 1 to 200, with ratios of 201 to 2
		samples, floor = append(samples, float64(200-i)), append(floor, float64(200-i)/float64(2+i))
	}
	r.Add(key, samples, floor)
	if f, ok := r.Find(key); !ok || f.Samples != 200 || f.P50 != 100 || f.P99 != 198 || f.Ratio < 100.9 || f.Ratio > 101.1 {
		t.Errorf("figure %+v", f)
	}
	if _, ok := r.Find(report.Key{Part: report.Growth, Measure: report.Attach, By: "iptables"}); ok {
		t.Error("it has a figure that was not measured")
	}
}

// TestJSON: what is written is read again.
func TestJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	want := results(true)
	if err := want.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := report.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestPlots: all that the text shows is there, well-formed, and has who was measured.
func TestPlots(t *testing.T) {
	r := results(true)
	plots, err := r.Plots()
	if err != nil {
		t.Fatal(err)
	}
	for name, plot := range plots {
		if !strings.Contains(r.Text(), "(performance/"+name+")") {
			t.Errorf("the text does not show %s", name)
		}
		for decoder := xml.NewDecoder(strings.NewReader(string(plot))); err == nil; {
			_, err = decoder.Token()
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
		err = nil
	}
	for name, words := range map[string][]string{"attach.svg": {"floor", "nftables", "iptables", "16,384"}, "peers.svg": {"nftables", report.CNIPtp, "50.0"}} {
		for _, word := range words {
			if !strings.Contains(string(plots[name]), ">"+word) && !strings.Contains(string(plots[name]), "> "+word) {
				t.Errorf("%s has no %q", name, word)
			}
		}
	}
}

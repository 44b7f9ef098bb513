package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"zwrm/bench/measure"
	"zwrm/bench/report"
	"zwrm/test/page"
	"zwrm/test/zwrmtest"
)

var update = flag.Bool("update", false, "write the page anew from the results that are kept")

func TestMain(m *testing.M) { zwrmtest.Main(m) }

// TestRun: a run with few of everything has every figure of the page, and leaves
// nothing behind.
func TestRun(t *testing.T) {
	options := measure.Options{
		Levels: []int{0, 20}, PerApp: []int{10}, Rounds: 3, Burst: 2, Pool: 8, Counts: []int{1, 4}, Deploys: 1,
		Peers: 2, Others: 2, FillTime: time.Minute, Restarts: 1, Idle: time.Millisecond, Syncs: 2,
	}
	results, err := run(t.Context(), options, nil, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	text := results.Text()
	for line := range strings.Lines(text) {
		if strings.Contains(line, "not measured") && !strings.Contains(line, " pool") {
			t.Errorf("not measured: %s", line)
		}
	}
	for _, who := range []string{report.Floor, "nftables", "iptables", report.CNIPtp, report.CNIBridge, report.GuideIptables, report.GuideNftables} {
		if !strings.Contains(text, "| "+who+" | ") {
			t.Errorf("there is no %q beside the programs of others:\n%s", who, text)
		}
	}
	for _, f := range results.Figures {
		// Little of the kernel's memory changes so, and no time of an idle zwrmd.
		if f.P50 <= 0 && f.Measure != report.Kernel && f.Measure != report.Idle {
			t.Errorf("%+v", f)
		}
	}
	dir := t.TempDir()
	out := output{json: filepath.Join(dir, "results.json"), page: filepath.Join(dir, "page.md")}
	write(t, out.page, "<!-- figures -->\n<!-- end -->\n")
	if err := out.write(results); err != nil {
		t.Fatal(err)
	}
	agree(t, out)
	if links := interfaces(t); !slices.Equal(links, []string{"lo"}) {
		t.Errorf("links are left: %v", links)
	}
}

// TestPage: the page and its plots are those of the results that are kept. The
// benchmark writes all of them (make bench).
func TestPage(t *testing.T) {
	kept := output{json: "results/performance.json", page: "../docs/performance.md"}
	if *update {
		results, err := report.Read(kept.json)
		if err != nil {
			t.Fatal(err)
		}
		if err := kept.write(results); err != nil {
			t.Fatal(err)
		}
	}
	agree(t, kept)
}

// agree fails the test when the page does not show the results.
func agree(t *testing.T, o output) {
	t.Helper()
	results, err := report.Read(o.json)
	if err != nil {
		t.Fatal(err)
	}
	figures, err := page.Read(o.page)
	if err != nil {
		t.Fatal(err)
	}
	if figures != results.Text() {
		t.Errorf("%s differs from %s, which is\n%s", o.page, o.json, results.Text())
	}
	plots, err := results.Plots()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range plots {
		got, err := os.ReadFile(filepath.Join(strings.TrimSuffix(o.page, ".md"), name))
		if err != nil {
			t.Error(err)
		} else if string(got) != string(want) {
			t.Errorf("plot %s differs from %s", name, o.json)
		}
	}
}

// TestScope: what fails is told, what was made goes, and nothing comes after that.
func TestScope(t *testing.T) {
	var order []string
	err := in(t.Context(), "part", t.Output(), func(t testing.TB) {
		t.Cleanup(func() { order = append(order, "first made", t.Context().Err().Error()) })
		t.Cleanup(func() {
			order = append(order, "last made")
			t.Fatal("cannot go")
		})
		t.Fatalf("broken %s", "on purpose")
		order = append(order, "after")
	})
	if err == nil || !strings.Contains(err.Error(), "part: broken on purpose") || !strings.Contains(err.Error(), "cannot go") {
		t.Errorf("error %v", err)
	}
	if want := []string{"last made", "first made", context.Canceled.Error()}; !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := run(ctx, measure.Options{Levels: []int{0}}, nil, t.Output()); !errors.Is(err, context.Canceled) {
		t.Errorf("a run that was broken off: %v", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func interfaces(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

package load_test

import (
	"bufio"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"zwrm/test/zwrmtest"
)

// tally is how long answers took, and what went wrong.
type tally struct {
	mu   sync.Mutex
	took map[string][]time.Duration
	errs []error
}

func (l *tally) note(kind string, took time.Duration, err error) {
	if l.took == nil {
		l.took = map[string][]time.Duration{}
	}
	l.took[kind] = append(l.took[kind], took)
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s: %w", kind, err))
	}
}

// add takes in what one caller noted.
func (l *tally) add(other *tally) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.took == nil {
		l.took = map[string][]time.Duration{}
	}
	for kind, took := range other.took {
		l.took[kind] = append(l.took[kind], took...)
	}
	l.errs = append(l.errs, other.errs...)
}

// report prints how long each kind of request took, and reports errors.
func (l *tally) report(t *testing.T) {
	t.Helper()
	var text strings.Builder
	out := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "request\tanswers\tp50\tp99\tmax\t")
	total := 0
	for _, k := range kinds() {
		took := l.took[k.name]
		total += len(took)
		if len(took) < fewest {
			t.Errorf("%q was asked %d times only", k.name, len(took))
			continue
		}
		slices.Sort(took)
		at := func(percent int) time.Duration { return took[(len(took)-1)*percent/100].Round(10 * time.Microsecond) }
		fmt.Fprintf(out, "%s\t%d\t%s\t%s\t%s\t\n", k.name, len(took), at(50), at(99), at(100))
	}
	_ = out.Flush() // text is memory
	t.Logf("%d answers to %d clients in %s, with %d VMs:\n%s", total, clients, during, vms, text.String())
	for _, err := range l.errs[:min(len(l.errs), 10)] {
		t.Error(err)
	}
	if n := len(l.errs); n > 10 {
		t.Errorf("%d errors in all", n)
	}
}

// figures are what zwrmd says of itself in its metrics.
type figures struct {
	goroutines, descriptors, threads, collections float64
	live                                          float64 // bytes that the last collection left
	resident                                      float64 // bytes
}

func measure(t *testing.T, d *zwrmtest.Daemon) figures {
	t.Helper()
	values := map[string]float64{}
	for lines := bufio.NewScanner(strings.NewReader(d.Metrics(t))); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		values[name], _ = strconv.ParseFloat(value, 64)
	}
	f := figures{
		goroutines: values["go_goroutines"], descriptors: values["process_open_fds"], threads: values["go_threads"],
		collections: values["go_gc_duration_seconds_count"],
		// The next collection is due when the heap is twice what the last one left.
		live: values["go_memstats_next_gc_bytes"] / 2, resident: values["process_resident_memory_bytes"],
	}
	if f.goroutines == 0 || f.descriptors == 0 || f.collections == 0 || f.live == 0 || f.resident == 0 {
		t.Fatalf("the metrics lack something: %+v", f)
	}
	return f
}

func (f figures) String() string {
	return fmt.Sprintf("%.0f goroutines, %.0f descriptors, %.0f threads, %.1f MiB live, %.1f MiB resident",
		f.goroutines, f.descriptors, f.threads, f.live/(1<<20), f.resident/(1<<20))
}

// warmUp has zwrmd do once what it does under load, as far as it keeps something for
// later: connections to the database, buffers. It ends behind a collection.
func warmUp(t *testing.T, d *zwrmtest.Daemon) {
	t.Helper()
	var work sync.WaitGroup
	for i := range 16 {
		work.Go(func() {
			c := newCaller(d.Socket, i)
			defer c.close()
			for _, k := range kinds() {
				if err := k.ask(t.Context(), c); err != nil {
					t.Errorf("%s: %v", k.name, err)
				}
			}
			if err := c.tidy(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	collect(t, d)
}

// collect has zwrmd collect its garbage, which it does when it was asked for enough.
func collect(t *testing.T, d *zwrmtest.Daemon) {
	t.Helper()
	for until := measure(t, d).collections + 3; measure(t, d).collections < until; {
		d.VMs(t)
	}
}

// noLeak checks that zwrmd gets back to what it had before the load. Connections end
// some time after their clients do.
func noLeak(t *testing.T, d *zwrmtest.Daemon, base figures) {
	t.Helper()
	const slack = 16 << 20 // bytes: pages of SQLite's caches and the runtime's own
	var now figures
	for end := time.Now().Add(30 * time.Second); ; {
		collect(t, d)
		now = measure(t, d)
		fits := now.goroutines <= base.goroutines && now.descriptors <= base.descriptors && now.live <= base.live+slack
		if fits || time.Now().After(end) {
			break
		}
	}
	t.Logf("before: %s; after: %s", base, now)
	if now.goroutines > base.goroutines {
		t.Errorf("%.0f goroutines are left, there were %.0f", now.goroutines, base.goroutines)
	}
	if now.descriptors > base.descriptors {
		t.Errorf("%.0f descriptors are left, there were %.0f", now.descriptors, base.descriptors)
	}
	if now.live > base.live+slack {
		t.Errorf("%.0f bytes are live, there were %.0f", now.live, base.live)
	}
}

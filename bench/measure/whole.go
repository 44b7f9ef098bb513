package measure

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/bench/report"
	"zwrm/test/zwrmtest"
)

// whole measures zwrmd with all VMs there.
func (o Options) whole(t testing.TB, r *report.Results, f *field) {
	t.Helper()
	daemons := f.daemons
	key := report.Key{Part: report.Whole, Present: f.present}
	add := func(by string, m report.Measure, samples, floor []float64) {
		key.By, key.Measure = by, m
		r.Add(key, samples, floor)
	}
	r.Add(report.Key{Part: report.Whole, Measure: report.Sync, By: "disk"}, o.disk(t, daemons[0].Host.Dir), nil)
	if daemons[0].poolable { // as zwrmd runs by itself
		f.setPool(t, o.Pool)
	}
	used := make([]float64, len(daemons))
	time.Sleep(o.Idle / 4) // for what zwrmd looks at again some time after a change
	start := time.Now()
	for i, d := range daemons {
		add(d.dataplane, report.Resident, []float64{resident(t, d.PID())}, nil)
		used[i] = processor(t, d.PID()).Seconds()
	}
	time.Sleep(o.Idle)
	for i, d := range daemons {
		spent := processor(t, d.PID()).Seconds() - used[i]
		add(d.dataplane, report.Idle, []float64{100 * spent / time.Since(start).Seconds()}, nil)
	}
	lists, restarts := make([][]float64, len(daemons)), make([][]float64, len(daemons))
	for range o.Restarts {
		for i, d := range daemons {
			lists[i] = append(lists[i], timeList(t, d))
			restarts[i] = append(restarts[i], milliseconds(d.restart(t, d.pool)))
		}
	}
	for i, d := range daemons {
		add(d.dataplane, report.List, lists[i], nil)
		add(d.dataplane, report.Restart, restarts[i], nil)
	}
	t.Logf("memory, idle, lists, restarts: done")
	f.setPool(t, 0) // whose links are not those of VMs
	o.rebuild(t, add, f)
}

// rebuild measures how all links are made anew, and what memory of the kernel they take.
func (o Options) rebuild(t testing.TB, add func(by string, m report.Measure, samples, floor []float64), f *field) {
	t.Helper()
	daemons, vms := f.daemons, f.present
	floors, memory := []float64{}, make([][]float64, 1+len(daemons))
	rebuilds := make([][]float64, len(daemons))
	perVM := func(before float64) float64 { return (kernelMemory(t) - before) / float64(vms) }
	for range max(1, o.Restarts/3) { // each makes the links of everyone
		f.floor.deleteLast(t, len(f.floor.made))
		before := kernelMemory(t)
		floors = append(floors, milliseconds(f.floor.batch(t, vms)))
		memory[0] = append(memory[0], perVM(before))
		for i, d := range daemons {
			taps := d.taps(t)
			d.Stop(t)
			deleteLinks(t, d.Host.Namespace, "zvm")
			before := kernelMemory(t)
			began := time.Now()
			d.start(t)
			d.await(t, taps, true)
			for d.Pending(t) > 0 {
				time.Sleep(look)
			}
			rebuilds[i] = append(rebuilds[i], milliseconds(time.Since(began)))
			memory[1+i] = append(memory[1+i], perVM(before))
			d.settle(t)
		}
		t.Logf("all links made anew: done")
	}
	add(report.Floor, report.Rebuild, floors, nil)
	add(report.Floor, report.Kernel, memory[0], nil)
	for i, d := range daemons {
		add(d.dataplane, report.Rebuild, rebuilds[i], floors)
		add(d.dataplane, report.Kernel, memory[1+i], nil)
	}
}

// destroyAll measures how the VMs go all at once.
func (f *field) destroyAll(t testing.TB, r *report.Results) {
	t.Helper()
	key := report.Key{Part: report.Whole, Present: f.present, Count: f.present}
	add := func(by string, m report.Measure, took time.Duration, floor ...float64) {
		key.By, key.Measure = by, m
		r.Add(key, []float64{milliseconds(took)}, floor)
	}
	floor := f.floor.deleteAll(t)
	add(report.Floor, report.Destroy, floor)
	for _, d := range f.daemons {
		answered, gone := d.destroyAll(t, f.present)
		add(d.dataplane, report.Answered, answered)
		add(d.dataplane, report.Destroy, gone, milliseconds(floor))
	}
}

// timeList returns how long zwrm takes to list all VMs, in milliseconds.
func timeList(t testing.TB, d *daemon) float64 {
	t.Helper()
	zwrmtest.Binary(t, "zwrm")
	start := time.Now()
	d.Must(t, "ps", "-o", "json")
	return milliseconds(time.Since(start))
}

// disk returns how long it takes to append 128 bytes to a file and have them on the
// disk, in milliseconds.
func (o Options) disk(t testing.TB, dir string) []float64 {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "sync"))
	must(t, err)
	defer os.Remove(file.Name())
	defer file.Close()
	var took []float64
	for range o.Syncs {
		start := time.Now()
		_, err := file.Write(make([]byte, 128))
		must(t, err)
		must(t, unix.Fdatasync(int(file.Fd())))
		took = append(took, milliseconds(time.Since(start)))
	}
	return took
}

// processor returns how much processor time a process has used.
func processor(t testing.TB, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(text), ") ") // behind the name, which may be anything
	fields := strings.Fields(rest)
	const utime, stime = 11, 12 // proc(5) counts from 1 and the pid
	ticks := 0
	for _, i := range []int{utime, stime} {
		n, err := strconv.Atoi(fields[i])
		must(t, err)
		ticks += n
	}
	const perSecond = 100 // USER_HZ, of every architecture that ZWRM runs on
	return time.Duration(ticks) * time.Second / perSecond
}

// resident returns the memory of a process, in MiB.
func resident(t testing.TB, pid int) float64 {
	t.Helper()
	return kibibytes(t, fmt.Sprintf("/proc/%d/status", pid), "VmRSS") / 1024
}

// kernelMemory returns how much memory the kernel has for itself, in KiB.
func kernelMemory(t testing.TB) float64 {
	t.Helper()
	return kibibytes(t, "/proc/meminfo", "Slab", "KernelStack", "PageTables", "Percpu", "VmallocUsed")
}

// kibibytes returns the sum of some lines of a file, each of which must be there.
func kibibytes(t testing.TB, path string, names ...string) (sum float64) {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	found := 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		for _, wanted := range names {
			if name == wanted {
				n, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
				must(t, err)
				sum, found = sum+n, found+1
			}
		}
	}
	if found != len(names) {
		t.Fatalf("%s has %d of the lines %v", path, found, names)
	}
	return sum
}

package measure

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"zwrm/bench/report"
	"zwrm/test/page"
)

// Options is how much is measured.
type Options struct {
	Levels   []int         // numbers of VMs present, ascending
	PerApp   []int         // VMs of an app; the first is that of most figures
	Rounds   int           // of attach and detach one by one; half as many for all but the first PerApp
	Pool     int           // TAPs of the pool
	Counts   []int         // VMs of a deploy
	Deploys  int           // rounds of them
	Peers    int           // networks present beside the programs of others
	Others   int           // rounds with them
	FillTime time.Duration // the longest that one of them may take to make those
	Restarts int           // rounds of what is done to zwrmd with the most VMs
	Burst    int           // of them, until it is the next one's turn
	Pause    time.Duration // between turns
	Idle     time.Duration
	Syncs    int // of the disk
}

// Full returns what the figures of the page are made with.
func Full() Options {
	return Options{
		Levels: []int{0, 1000, 4000, 10000, 16384}, PerApp: []int{10, 1, 1000}, Rounds: 200, Burst: 20, Pause: 200 * time.Millisecond, Pool: 64,
		Counts: []int{1, 10, 100, 1000}, Deploys: 5, Peers: 1000, Others: 20, FillTime: 5 * time.Minute,
		Restarts: 6, Idle: 30 * time.Second, Syncs: 200,
	}
}

// Quick returns what takes about two minutes.
func Quick() Options {
	return Options{
		Levels: []int{0, 500}, PerApp: []int{10}, Rounds: 40, Burst: 20, Pause: 200 * time.Millisecond, Pool: 64,
		Counts: []int{1, 10, 100}, Deploys: 3, Peers: 50, Others: 5, FillTime: 20 * time.Second,
		Restarts: 2, Idle: 5 * time.Second, Syncs: 50,
	}
}

// dataplanes are those that zwrmd has.
func dataplanes() []string { return []string{"nftables", "iptables"} }

// Versions is the part that takes no figures.
const Versions = "versions"

// Run takes all figures. part calls a function with what ends all it made.
func (o Options) Run(part func(name string, f func(t testing.TB))) *report.Results {
	r := &report.Results{Taken: time.Now().UTC().Truncate(time.Second), Levels: o.Levels, PerApp: o.PerApp, Counts: o.Counts, Peers: o.Peers}
	part(Versions, func(t testing.TB) { versions(t, r) })
	for _, perApp := range o.PerApp {
		part(fmt.Sprintf("growth, apps of %d", perApp), func(t testing.TB) { o.growth(t, r, perApp) })
	}
	for _, present := range []int{o.Levels[0], o.Levels[len(o.Levels)-1]} {
		for _, dataplane := range dataplanes() {
			part(fmt.Sprintf("deploys, %d present, %s", present, dataplane), func(t testing.TB) { o.deploys(t, r, dataplane, present) })
		}
	}
	part("peers", func(t testing.TB) { o.peers(t, r) })
	return r
}

func versions(t testing.TB, r *report.Results) {
	t.Helper()
	kernel, err := page.Kernel()
	must(t, err)
	r.Hardware, err = page.Hardware(kernel)
	must(t, err)
	for _, command := range []string{"iptables --version", "nft --version", "ip -V"} {
		words := strings.Fields(command)
		out, err := exec.CommandContext(t.Context(), words[0], words[1:]...).Output()
		must(t, err)
		r.Versions = append(r.Versions, strings.TrimSpace(string(out)))
	}
}

// field is everyone who has as many VMs as the others, in apps of one size.
type field struct {
	floor   *floor
	daemons []*daemon
	perApp  int
	pause   time.Duration // as in pace
	present int           // VMs
}

func newField(t testing.TB, perApp int, pause time.Duration) *field {
	t.Helper()
	f := &field{floor: newFloor(t), perApp: perApp, pause: pause}
	for _, dataplane := range dataplanes() {
		f.daemons = append(f.daemons, newDaemon(t, dataplane, perApp))
	}
	return f
}

// contenders returns everyone, the floor first.
func (f *field) contenders() []contender {
	all := []contender{f.floor}
	for _, d := range f.daemons {
		all = append(all, d)
	}
	return all
}

// setPool has zwrmd run with such a pool, and waits until it is filled.
func (f *field) setPool(t testing.TB, pool int) {
	t.Helper()
	for _, d := range f.daemons {
		if d.pool != pool {
			d.restart(t, pool)
		}
		d.settle(t)
	}
}

// growth measures with more and more VMs in apps of one size.
func (o Options) growth(t testing.TB, r *report.Results, perApp int) {
	t.Helper()
	f := newField(t, perApp, o.Pause)
	pools, rounds := []int{0}, o.Rounds
	if f.daemons[0].poolable {
		pools = []int{o.Pool, 0}
	}
	if perApp != o.PerApp[0] {
		rounds = (rounds + 1) / 2
	}
	for _, level := range o.Levels {
		key := report.Key{Part: report.Growth, Present: level, PerApp: perApp}
		for i, pool := range pools {
			f.setPool(t, pool)
			f.fill(t, r, key, f.present+(level-f.present)/(len(pools)-i))
		}
		// The last pool that was filled with is the first that is measured.
		for _, pool := range slices.Backward(pools) {
			f.setPool(t, pool)
			key.Pool = pool > 0
			note(r, key, f.contenders(), contest(t, f.contenders(), f.present, pace{rounds, o.Burst, o.Pause}))
			t.Logf("%d VMs, apps of %d, pool %d: done", level, perApp, pool)
		}
	}
	if perApp == o.PerApp[0] {
		o.whole(t, r, f)
	}
	if perApp == slices.Max(o.PerApp) {
		f.destroyAll(t, r)
	}
}

// chunk is how many VMs are attached until it is the next one's turn.
const chunk = 500

// fill has everyone attach VMs until there are so many.
func (f *field) fill(t testing.TB, r *report.Results, key report.Key, until int) {
	t.Helper()
	if f.present == until {
		return
	}
	var floors []float64
	rates := make([][]float64, len(f.daemons))
	for f.present < until {
		count := min(chunk, until-f.present)
		floors = append(floors, rate(count, f.floor.one(t, count)))
		time.Sleep(f.pause)
		for i, d := range f.daemons {
			rates[i] = append(rates[i], rate(count, d.fill(t, f.present, count)))
			time.Sleep(f.pause)
		}
		f.present += count
	}
	key.Measure = report.Sustained
	key.By, key.Pool = report.Floor, f.daemons[0].pooled()
	r.Add(key, floors, nil)
	for i, d := range f.daemons {
		key.By = d.dataplane
		r.Add(key, rates[i], floors)
	}
}

func rate(count int, took time.Duration) float64 { return float64(count) / took.Seconds() }

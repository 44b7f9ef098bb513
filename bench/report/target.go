package report

import (
	"fmt"

	"zwrm/test/page"
)

// The program of others that the targets name.
const (
	CNIPtp        = "CNI ptp"
	CNIBridge     = "CNI bridge"
	CNITap        = "CNI ptp + tc-redirect-tap"
	GuideIptables = "guide, iptables"
	GuideNftables = "guide, nft"
	fastDisk      = 0.2 // ms of a sync, for which one target is meant
)

// target is a line of what was to be reached.
type target struct {
	what    string
	limit   float64
	least   bool   // the limit is the least, not the most
	format  string // of a figure
	measure func(r *Results, by string) (float64, bool)
	applies func(r *Results) string // empty, or why it does not
}

// verdict returns the figure in words and whether it is good enough.
func (t target) verdict(r *Results, by string) string {
	value, ok := t.measure(r, by)
	if !ok {
		return "not measured"
	}
	text := fmt.Sprintf(t.format, value)
	switch {
	case t.applies != nil && t.applies(r) != "":
		return text + ": " + t.applies(r)
	case value <= t.limit && !t.least, value >= t.limit && t.least:
		return text + ": reached"
	}
	return text + ": **missed**"
}

// limitText returns the limit in words.
func (t target) limitText() string {
	if t.least {
		return "≥ " + fmt.Sprintf(t.format, t.limit)
	}
	return "≤ " + fmt.Sprintf(t.format, t.limit)
}

const times, ms = "× %.2f", "%.2f ms"

// targets returns what was to be reached, in the order of the page.
func (r *Results) targets() []target {
	most, first := r.Most(), r.PerApp[0]
	least := r.Levels[0]
	growth := func(m Measure, pool bool, present int) func(*Results, string) (Figure, bool) {
		return func(r *Results, by string) (Figure, bool) {
			return r.Find(Key{Part: Growth, Measure: m, By: by, Pool: pool, Present: present, PerApp: first})
		}
	}
	whole := func(m Measure, count int) func(*Results, string) (Figure, bool) {
		return func(r *Results, by string) (Figure, bool) {
			return r.Find(Key{Part: Whole, Measure: m, By: by, Present: most, Count: count})
		}
	}
	n := page.Number(most)
	return []target{
		{what: "attach from the pool, at " + n + " VMs, to the floor's create", limit: 1.5, format: times, measure: ratio(growth(Attach, true, most))},
		{what: "attach from the pool, at " + n + ", where the disk syncs in 0.2 ms", limit: 0.3, format: ms, measure: p50(growth(Attach, true, most)), applies: slowDisk},
		{what: "attach without the pool, at " + page.Number(least), limit: 2.5, format: times, measure: ratio(growth(Attach, false, least))},
		{what: "attach without the pool, at " + n, limit: 2.5, format: times, measure: ratio(growth(Attach, false, most))},
		{what: "attach from the pool, at " + n + " to at " + page.Number(least), limit: 1.5, format: times, measure: flat(growth(Attach, true, most), growth(Attach, true, least))},
		{what: "attach without the pool, at " + n + " to at " + page.Number(least), limit: 1.5, format: times, measure: flat(growth(Attach, false, most), growth(Attach, false, least))},
		{what: "attaches by 64 clients, up to " + n + ", with a pool, to the floor's rate", limit: 0.6, least: true, format: times, measure: ratio(growth(Sustained, true, most))},
		{what: "the same, without a pool", limit: 0.6, least: true, format: times, measure: ratio(growth(Sustained, false, most))},
		{what: "deploy of " + page.Number(r.largest()) + " VMs, network part", limit: 1.3, format: times, measure: ratio(func(r *Results, by string) (Figure, bool) {
			return r.Find(Key{Part: Batch, Measure: Network, By: by, Count: r.largest()})
		})},
		{what: "detach at " + n + ", as the caller sees it", limit: 1, format: ms, measure: p50(r.best(growth, Detach, most))},
		{what: "bulk delete of all " + n + ", to the kernel's own by group", limit: 1.2, format: times, measure: ratio(whole(Destroy, most))},
		{what: "attach at " + page.Number(r.Peers) + " against CNI ptp + host-local + firewall", limit: 50, least: true, format: "%.0f times as fast", measure: r.faster(CNIPtp)},
		{what: "attach at " + page.Number(r.Peers) + " against the guide's processes, nft", limit: 20, least: true, format: "%.0f times as fast", measure: r.faster(GuideNftables)},
		{what: "the same, iptables", limit: 20, least: true, format: "%.0f times as fast", measure: r.faster(GuideIptables)},
		{what: "restart with " + n + " in sync until ready", limit: 1000, format: "%.0f ms", measure: p50(whole(Restart, 0))},
		{what: "links of " + n + " from an empty kernel, to the floor's", limit: 1.3, format: times, measure: ratio(whole(Rebuild, 0))},
		{what: "resident memory of zwrmd at " + n, limit: 64, format: "%.0f MiB", measure: p50(whole(Resident, 0))},
		{what: "memory of the kernel per VM", limit: 70, format: "%.0f KiB", measure: p50(whole(Kernel, 0))},
		{what: "zwrmd idle at " + n + ", of one processor", limit: 0.5, format: "%.2f %%", measure: p50(whole(Idle, 0))},
		{what: "`zwrm ps -o json` at " + n, limit: 150, format: "%.0f ms", measure: p50(whole(List, 0))},
	}
}

type find func(r *Results, by string) (Figure, bool)

func ratio(f find) func(*Results, string) (float64, bool) {
	return func(r *Results, by string) (float64, bool) {
		figure, ok := f(r, by)
		return figure.Ratio, ok
	}
}

func p50(f find) func(*Results, string) (float64, bool) {
	return func(r *Results, by string) (float64, bool) {
		figure, ok := f(r, by)
		return figure.P50, ok
	}
}

// flat returns how much one is above the other.
func flat(many, few find) func(*Results, string) (float64, bool) {
	return func(r *Results, by string) (float64, bool) {
		a, okA := many(r, by)
		b, okB := few(r, by)
		return a.P50 / b.P50, okA && okB
	}
}

// best returns the figure with the pool, which is how zwrmd runs by itself, if it has one.
func (r *Results) best(growth func(Measure, bool, int) func(*Results, string) (Figure, bool), m Measure, present int) find {
	return growth(m, r.pooled()[0], present)
}

// faster returns how many times as fast as a program of others an attach is.
func (r *Results) faster(peer string) func(*Results, string) (float64, bool) {
	key := Key{Part: Peers, Measure: Attach, Present: r.Peers, PerApp: r.PerApp[0]}
	return func(r *Results, by string) (float64, bool) {
		ours, theirs := key, key
		ours.By, ours.Pool, theirs.By = by, r.pooled()[0], peer
		a, okA := r.Find(ours)
		b, okB := r.Find(theirs)
		return b.P50 / a.P50, okA && okB
	}
}

// largest returns how many VMs the largest deploy has.
func (r *Results) largest() int { return r.Counts[len(r.Counts)-1] }

func slowDisk(r *Results) string {
	if f, ok := r.Find(Key{Part: Whole, Measure: Sync, By: "disk"}); ok && f.P50 > fastDisk {
		return fmt.Sprintf("the disk takes %.2f ms", f.P50)
	}
	return ""
}

package report

import (
	"fmt"
	"strings"
	"time"

	"zwrm/test/page"
)

// dataplanes are the columns of what is told of ours.
func dataplanes() []string { return []string{"nftables", "iptables"} }

// Text returns the figures in Markdown, with the plots that Plots returns.
func (r *Results) Text() string {
	var out strings.Builder
	fmt.Fprintf(&out, "Taken on %s: %s; %s.\n", r.Taken.Format(time.DateOnly), r.Hardware, strings.Join(r.Versions, ", "))
	for _, note := range r.Notes {
		fmt.Fprintf(&out, "%s\n", note)
	}
	out.WriteString("\n### What it had to reach\n\n" + page.Table(r.targetTable()))
	fmt.Fprintf(&out, "\n### Attach and detach, one by one\n\nMedian, 99th percentile, and the median of the ratios to the floor of the same rounds.\n\n%s\n", image(attachPlot, "attach by the number of VMs"))
	out.WriteString(page.Table(r.growthTable(Attach)) + "\n" + image(detachPlot, "detach by the number of VMs") + "\n" + page.Table(r.growthTable(Detach)))
	out.WriteString("\n### Attach by 64 clients at once\n\nVMs per second up to that many, and the ratio to the floor's rate.\n\n" + page.Table(r.growthTable(Sustained)))
	out.WriteString("\n### Deploy\n\nUntil the networks of all VMs are open; with the rows that the start of each VM writes; and the floor's for as many.\n\n" +
		image(deployPlot, "deploy by the number of VMs") + "\n" + page.Table(r.batchTable()))
	fmt.Fprintf(&out, "\n### Beside other programs\n\nMedian and 99th percentile, each in a network namespace of its own, with so many networks that it made itself.\n\n%s\n%s",
		image(peersPlot, "attach beside other programs"), page.Table(r.peersTable()))
	fmt.Fprintf(&out, "\n### Shares\n\nWithout the pool, at %s VMs: the median, what of it the floor takes, and one sync of the disk; the rest is zwrmd's and the caller's.\n\n%s",
		page.Number(r.Most()), page.Table(r.shareTable()))
	fmt.Fprintf(&out, "\n### With %s VMs\n\n%s", page.Number(r.Most()), page.Table(r.wholeTable()))
	return out.String()
}

func image(name, what string) string { return fmt.Sprintf("![%s](performance/%s)\n", what, name) }

func (r *Results) targetTable() [][]string {
	table := [][]string{append([]string{"", "target"}, dataplanes()...)}
	for _, t := range r.targets() {
		row := []string{t.what, t.limitText()}
		for _, by := range dataplanes() {
			row = append(row, t.verdict(r, by))
		}
		table = append(table, row)
	}
	return table
}

// growthTable has a row for each who and how, and a column for each number of VMs.
func (r *Results) growthTable(m Measure) [][]string {
	head := []string{""}
	for _, present := range r.Levels {
		head = append(head, page.Number(present)+" VMs")
	}
	table := [][]string{head}
	for _, perApp := range r.PerApp {
		for _, by := range r.who(Growth, m) {
			for _, pool := range r.pooled() {
				row := []string{r.label(by, pool, perApp)}
				found := false
				for _, present := range r.Levels {
					f, ok := r.Find(Key{Part: Growth, Measure: m, By: by, Pool: pool, Present: present, PerApp: perApp})
					found = found || ok
					row = append(row, cell(f, ok))
				}
				if found {
					table = append(table, row)
				}
			}
		}
	}
	return table
}

// label says who and how.
func (r *Results) label(by string, pool bool, perApp int) string {
	text := by
	if by != Floor {
		text += fmt.Sprintf(", apps of %s", page.Number(perApp))
	} else if perApp != r.PerApp[0] {
		text += fmt.Sprintf(", beside apps of %s", page.Number(perApp))
	}
	switch {
	case pool && by == Floor:
		text += ", beside the pool"
	case pool:
		text += ", pool"
	}
	return text
}

// cell returns a figure with its 99th percentile and ratio.
func cell(f Figure, ok bool) string {
	switch {
	case !ok:
		return "-"
	case f.Measure.rate() && f.Ratio == 0:
		return fmt.Sprintf("%.0f/s", f.P50)
	case f.Measure.rate():
		return fmt.Sprintf("%.0f/s (× %.2f)", f.P50, f.Ratio)
	case f.Ratio == 0:
		return fmt.Sprintf("%s · %s ms", short(f.P50), short(f.P99))
	}
	return fmt.Sprintf("%s · %s ms (× %s)", short(f.P50), short(f.P99), short(f.Ratio))
}

// short returns a number with about three digits.
func short(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	case x >= 1:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.3f", x)
}

func (r *Results) batchTable() [][]string {
	head := []string{""}
	for _, n := range r.Counts {
		head = append(head, page.Number(n))
	}
	table := [][]string{head}
	for _, m := range []Measure{Network, Deploy} {
		for _, by := range r.who(Batch, m) {
			for _, present := range r.Levels {
				row := []string{fmt.Sprintf("%s: %s, %s present", by, m, page.Number(present))}
				if by == Floor {
					row[0] = fmt.Sprintf("%s, %s present", by, page.Number(present))
				}
				found := false
				for _, n := range r.Counts {
					f, ok := r.Find(Key{Part: Batch, Measure: m, By: by, Present: present, Count: n})
					found = found || ok
					row = append(row, cell(f, ok))
				}
				if found {
					table = append(table, row)
				}
			}
		}
	}
	return table
}

func (r *Results) peersTable() [][]string {
	head := []string{""}
	for _, m := range []Measure{Attach, Detach} {
		for _, present := range r.peerLevels() {
			head = append(head, fmt.Sprintf("%s at %s", m, page.Number(present)))
		}
	}
	table := [][]string{append(head, "to attach of nftables at "+page.Number(r.Peers))}
	for _, by := range r.who(Peers, Attach) {
		for _, pool := range r.pooled() {
			row := []string{by}
			if pool {
				row[0] += ", pool"
			}
			var last Figure
			found := false
			for _, m := range []Measure{Attach, Detach} {
				for _, present := range r.peerLevels() {
					f, ok := r.Find(Key{Part: Peers, Measure: m, By: by, Pool: pool, Present: present, PerApp: r.PerApp[0]})
					if ok && m == Attach {
						last, found = f, true
					}
					f.Ratio = 0 // to the floor: it tells nothing here
					row = append(row, cell(f, ok))
				}
			}
			if found {
				table = append(table, append(row, r.beside(last)))
			}
		}
	}
	return table
}

// beside returns how an attach compares with ours.
func (r *Results) beside(f Figure) string {
	ours, ok := r.Find(Key{Part: Peers, Measure: Attach, By: dataplanes()[0], Pool: r.pooled()[0], Present: r.Peers, PerApp: r.PerApp[0]})
	if !ok || f.Present != r.Peers {
		return "-"
	}
	return "× " + short(f.P50/ours.P50)
}

func (r *Results) peerLevels() []int {
	if r.Peers == 0 {
		return []int{0}
	}
	return []int{0, r.Peers}
}

// shareTable says how much of the time is the kernel's, and how much the disk's.
func (r *Results) shareTable() [][]string {
	table := [][]string{{"", "in all", "the kernel", "the disk", "the rest"}}
	sync, _ := r.Find(Key{Part: Whole, Measure: Sync, By: "disk"})
	for _, m := range []Measure{Attach, Detach} {
		key := Key{Part: Growth, Measure: m, By: Floor, Present: r.Most(), PerApp: r.PerApp[0]}
		floor, _ := r.Find(key)
		for _, by := range dataplanes() {
			key.By = by
			f, ok := r.Find(key)
			switch {
			case !ok:
				continue
			case floor.P50 > f.P50:
				table = append(table, []string{fmt.Sprintf("%s, %s", m, by), short(f.P50) + " ms", "after the answer", "-", "-"})
			default:
				rest := max(0, f.P50-floor.P50-sync.P50)
				table = append(table, []string{fmt.Sprintf("%s, %s", m, by), short(f.P50) + " ms", share(floor.P50, f.P50), share(sync.P50, f.P50), share(rest, f.P50)})
			}
		}
	}
	return table
}

func share(part, whole float64) string {
	return fmt.Sprintf("%s ms (%.0f %%)", short(part), 100*part/whole)
}

func (r *Results) wholeTable() [][]string {
	table := [][]string{append([]string{""}, append(dataplanes(), Floor)...)}
	for _, row := range []struct {
		what    string
		measure Measure
		count   int
		unit    string
	}{
		{"restart in sync until ready", Restart, 0, "ms"},
		{"restart from an empty kernel until all links are there", Rebuild, 0, "ms"},
		{"destroy of all until answered", Answered, r.Most(), "ms"},
		{"destroy of all until the kernel has no link of them", Destroy, r.Most(), "ms"},
		{"resident memory of zwrmd", Resident, 0, "MiB"},
		{"memory of the kernel per VM", Kernel, 0, "KiB"},
		{"zwrmd idle, of one processor", Idle, 0, "%"},
		{"`zwrm ps -o json`", List, 0, "ms"},
	} {
		cells := []string{row.what}
		for _, by := range append(dataplanes(), Floor) {
			f, ok := r.Find(Key{Part: Whole, Measure: row.measure, By: by, Present: r.Most(), Count: row.count})
			switch {
			case !ok:
				cells = append(cells, "-")
			case f.Ratio == 0:
				cells = append(cells, short(f.P50)+" "+row.unit)
			default:
				cells = append(cells, fmt.Sprintf("%s %s (× %.2f)", short(f.P50), row.unit, f.Ratio))
			}
		}
		table = append(table, cells)
	}
	if f, ok := r.Find(Key{Part: Whole, Measure: Sync, By: "disk"}); ok {
		table = append(table, []string{"for comparison: append 128 bytes and fdatasync", cell(f, true), cell(f, true), "-"})
	}
	return table
}

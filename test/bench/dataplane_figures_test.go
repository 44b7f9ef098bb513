package bench_test

import (
	"fmt"
	"time"

	"zwrm/test/bench/figures"
	"zwrm/test/page"
)

const dataplanesPage = "../../docs/dataplanes.md"

// results is what one run found out.
type results struct {
	scale
	hardware string
	traffic  map[string]outcome         // by row
	changes  map[string][]time.Duration // medians, by row and number of apps
}

// outcome is how one metric came out.
type outcome struct {
	rounds int
	plain  time.Duration // the median of one
	rate   bool          // the ratios are those of rates
	ratios map[rules]ratios
}

func (o outcome) plainText() string {
	if o.rate {
		return fmt.Sprintf("%.0f/s", float64(time.Second)/float64(o.plain))
	}
	return fmt.Sprintf("%.1f µs", float64(o.plain)/float64(time.Microsecond))
}

// text returns the figures in Markdown. A row that was not measured is an error.
func (r *results) text() (string, error) {
	traffic, rounds, err := r.trafficTable()
	if err != nil {
		return "", err
	}
	changes, err := r.changesTable()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("Taken on: %s.\n\n", r.hardware) +
		fmt.Sprintf("Packets between two VMs of one app, with %s apps of %d VMs: medians of %s rounds, and what 80 %% of the rounds are between.\n\n",
			page.Number(r.apps), vmsPerApp, page.Number(rounds)) +
		page.Table(traffic) + "\nChanges of rules: medians.\n\n" + page.Table(changes), nil
}

func (r *results) trafficTable() (table [][]string, rounds int, err error) {
	table = [][]string{{"", "target", "nftables", "iptables", "masquerading only", "plain routing, again", "plain routing"}}
	for _, row := range figures.Traffic() {
		o, ok := r.traffic[row.What]
		if !ok {
			return nil, 0, fmt.Errorf("%q was not measured", row.What)
		}
		cells := []string{row.What, verdict(row.Target, o.ratios[onNftables].median)}
		for _, with := range []rules{onNftables, onIptables, masquerade, plainAgain} {
			cells = append(cells, o.ratios[with].String())
		}
		table, rounds = append(table, append(cells, o.plainText())), o.rounds
	}
	return table, rounds, nil
}

func (r *results) changesTable() ([][]string, error) {
	head := []string{"", "target"}
	for _, n := range r.sizes {
		head = append(head, page.Number(n)+" apps")
	}
	table := [][]string{append(head, "most to fewest")}
	for _, row := range figures.Changes() {
		took, ok := r.changes[row.What]
		if !ok {
			return nil, fmt.Errorf("%q was not measured", row.What)
		}
		most := took[len(took)-1]
		growth := float64(most) / float64(took[0])
		judged := growth
		if row.Target.Milliseconds != 0 {
			judged = milliseconds(most)
		}
		cells := []string{row.What, verdict(row.Target, judged)}
		for _, t := range took {
			cells = append(cells, fmt.Sprintf("%.3g ms", milliseconds(t)))
		}
		table = append(table, append(cells, fmt.Sprintf("× %.2f", growth)))
	}
	return table, nil
}

func milliseconds(t time.Duration) float64 { return float64(t) / float64(time.Millisecond) }

// verdict returns a target and whether it was reached.
func verdict(target figures.Target, figure float64) string {
	switch {
	case target == figures.Target{}:
		return target.String()
	case target.Holds(figure):
		return target.String() + ": reached"
	}
	return target.String() + ": missed"
}

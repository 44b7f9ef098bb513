package bench_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"zwrm/test/bench/figures"
)

const page = "../../docs/dataplanes.md"

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
			number(r.apps), vmsPerApp, number(rounds)) +
		markdown(traffic) + "\nChanges of rules: medians.\n\n" + markdown(changes), nil
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
		head = append(head, number(n)+" apps")
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

// markdown returns a table whose first row is its head.
func markdown(table [][]string) string {
	var out strings.Builder
	for i, cells := range table {
		fmt.Fprintf(&out, "| %s |\n", strings.Join(cells, " | "))
		if i == 0 {
			out.WriteString(strings.Repeat("|---", len(cells)) + "|\n")
		}
	}
	return out.String()
}

// number returns a number with a comma before the last three digits.
func number(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", number(n/1000), n%1000)
}

// write puts the figures into a page.
func write(page, text string) error {
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, begins := bytes.Cut(old, []byte(figures.Begin+"\n"))
	_, after, ends := bytes.Cut(rest, []byte(figures.End+"\n"))
	if !begins || !ends {
		return errors.New("the page has no place for figures")
	}
	fresh := string(before) + figures.Begin + "\n" + text + figures.End + "\n" + string(after)
	return os.WriteFile(page, []byte(fresh), 0o644)
}

// hardware describes what the figures were taken on.
func hardware(versions ...string) (string, error) {
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	model := runtime.GOARCH
	for line := range strings.Lines(string(cpuinfo)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%s, %d processors, %s", model, runtime.NumCPU(), strings.Join(versions, ", ")), nil
}

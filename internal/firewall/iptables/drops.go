package iptables

import (
	"context"
	"strings"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/xtables"
)

// Drops returns what the rules dropped, by reason: since they were first made, even
// if this process wrote them anew since. Every reason to drop is there, if with 0.
func (d *Dataplane) Drops(ctx context.Context) (firewall.Drops, error) {
	for _, t := range d.tools {
		if _, err := d.read(ctx, t); err != nil {
			return nil, err
		}
	}
	d.counting.Lock()
	defer d.counting.Unlock()
	sum := firewall.Drops{}
	for _, t := range d.tools {
		for reason, count := range d.tally(t).Sum() {
			sum.Add(reason, count)
		}
	}
	return sum, nil
}

// tally returns that of a family. Every reading of the rules goes into it.
func (d *Dataplane) tally(t xtables.Tool) *firewall.Tally {
	if d.tallies == nil {
		d.tallies = map[string]*firewall.Tally{}
	}
	if d.tallies[t.Name] == nil {
		d.tallies[t.Name] = &firewall.Tally{}
	}
	return d.tallies[t.Name]
}

// drops returns the counters of our rules that drop.
func (s snapshot) drops() firewall.Drops {
	drops := firewall.Drops{}
	for _, t := range s {
		for _, chain := range t.ours() {
			for i, spec := range t.chains[chain] {
				_, comment, ok := strings.Cut(spec, mark)
				if reason, _, _ := strings.Cut(comment, `"`); ok && strings.HasSuffix(spec, " -j DROP") {
					drops.Add(firewall.Reason(reason), t.counts[chain][i])
				}
			}
		}
	}
	return drops
}

package iptables

import (
	"context"
	"strconv"
	"strings"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/xtables"
)

// Drops returns what the rules dropped, by reason: since they were first made, even
// if this process wrote them anew since. Every reason to drop is there, if with 0.
func (d *Dataplane) Drops(ctx context.Context) (firewall.Drops, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	sum := firewall.Drops{}
	for _, t := range d.tools {
		if err := d.observe(ctx, t); err != nil {
			return nil, err
		}
		for reason, count := range d.tally(t).Sum() {
			sum.Add(reason, count)
		}
	}
	return sum, nil
}

// observe reads the counters of a family into its tally.
func (d *Dataplane) observe(ctx context.Context, t xtables.Tool) error {
	text, err := t.Save(ctx, "--counters")
	if err != nil {
		return err
	}
	now := firewall.Drops{}
	for line := range strings.Lines(text) {
		if reason, count, ok := counted(strings.TrimSuffix(line, "\n")); ok {
			now.Add(reason, count)
		}
	}
	d.tally(t).Observe(now)
	return nil
}

// tally returns that of a family.
func (d *Dataplane) tally(t xtables.Tool) *firewall.Tally {
	if d.tallies == nil {
		d.tallies = map[string]*firewall.Tally{}
	}
	if d.tallies[t.Name] == nil {
		d.tallies[t.Name] = &firewall.Tally{}
	}
	return d.tallies[t.Name]
}

// counted reads a line of `iptables-save --counters`, as in
// `[7:420] -A ZWRM-INPUT ... --comment "zwrm: host" -j DROP`, if it is a rule of
// ours that drops.
func counted(line string) (firewall.Reason, firewall.Count, bool) {
	counters, rule, _ := strings.Cut(line, "] -A ")
	if !named(ChainName(rule)) || !strings.HasSuffix(rule, " -j DROP") {
		return "", firewall.Count{}, false
	}
	_, comment, _ := strings.Cut(rule, mark)
	reason, _, ok := strings.Cut(comment, `"`)
	packets, bytes, _ := strings.Cut(strings.TrimPrefix(counters, "["), ":")
	p, failedPackets := strconv.ParseUint(packets, 10, 64)
	b, failedBytes := strconv.ParseUint(bytes, 10, 64)
	return firewall.Reason(reason), firewall.Count{Packets: p, Bytes: b}, ok && failedPackets == nil && failedBytes == nil
}

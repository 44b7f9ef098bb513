package iptables

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"zwrm/internal/firewall"
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
func (d *Dataplane) observe(ctx context.Context, t tool) error {
	text, err := d.runner.run(ctx, "", t.save, "--counters")
	if err != nil {
		return fmt.Errorf("read the counters of %s: %w", t.name, err)
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
func (d *Dataplane) tally(t tool) *firewall.Tally {
	if d.tallies == nil {
		d.tallies = map[string]*firewall.Tally{}
	}
	if d.tallies[t.name] == nil {
		d.tallies[t.name] = &firewall.Tally{}
	}
	return d.tallies[t.name]
}

// counted reads a line of `iptables-save --counters`, as in
// `[7:420] -A ZWRM-INPUT ... --comment "zwrm: host" -j DROP`, if it is a rule of
// ours that drops.
func counted(line string) (firewall.Reason, firewall.Count, bool) {
	counters, rule, _ := strings.Cut(line, "] -A ")
	if !ChainName(rule).named() || !strings.HasSuffix(rule, " -j DROP") {
		return "", firewall.Count{}, false
	}
	_, comment, _ := strings.Cut(rule, mark)
	reason, _, ok := strings.Cut(comment, `"`)
	packets, bytes, _ := strings.Cut(strings.TrimPrefix(counters, "["), ":")
	p, failedPackets := strconv.ParseUint(packets, 10, 64)
	b, failedBytes := strconv.ParseUint(bytes, 10, 64)
	return firewall.Reason(reason), firewall.Count{Packets: p, Bytes: b}, ok && failedPackets == nil && failedBytes == nil
}

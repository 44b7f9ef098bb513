package daemon

import (
	"context"
	"sync"

	"zwrm/internal/firewall"
)

// The reasons of what the kernel refuses before it asks a rule.
const (
	malformed  firewall.Reason = "malformed"
	fragmented firewall.Reason = "fragments"
	ipv6Off    firewall.Reason = "ipv6-off"
	notTaken   firewall.Reason = "not-taken"
)

// drops returns what was dropped, by our rules and by the kernel itself. The answer
// belongs to all who asked for it.
func (d *Daemon) drops(ctx context.Context) (firewall.Drops, error) {
	return d.dropReadings.get(ctx, d.readDrops)
}

func (d *Daemon) readDrops(ctx context.Context) (firewall.Drops, error) {
	drops, err := d.dataplane.Drops(ctx)
	if err != nil {
		return nil, err
	}
	refused, err := d.kernel.Refused()
	if err != nil {
		return nil, err
	}
	drops.Add(malformed, firewall.Count{Packets: refused.Malformed})
	drops.Add(fragmented, firewall.Count{Packets: refused.Fragments})
	drops.Add(ipv6Off, firewall.Count{Packets: refused.IPv6})
	frames, err := d.kernel.NotTaken(ctx)
	if err != nil {
		return nil, err
	}
	drops.Add(notTaken, firewall.Count{Packets: d.frames.sum(frames)})
	return drops, nil
}

// frames keeps the sum of counters that go with their TAPs. Its zero value is ready
// for use.
type frames struct {
	mu   sync.Mutex
	last map[int]uint64 // by the number of the TAP
	gone uint64         // of TAPs that are no more
}

// sum takes in the counters as the kernel has them now. What a TAP counted after it was
// last looked at is lost with it.
func (f *frames) sum(now map[int]uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now == nil { // it cannot be told
		now = f.last
	}
	for tap, was := range f.last {
		if now[tap] < was {
			f.gone += was
		}
	}
	f.last = now
	sum := f.gone
	for _, n := range now {
		sum += n
	}
	return sum
}

package firewall

import "maps"

// Count is how often a rule matched.
type Count struct{ Packets, Bytes uint64 }

// Drops is what the rules dropped, by reason.
type Drops map[Reason]Count

// Add counts a rule in.
func (d Drops) Add(reason Reason, c Count) {
	sum := d[reason]
	d[reason] = Count{sum.Packets + c.Packets, sum.Bytes + c.Bytes}
}

// Tally keeps the sum of counters that begin at 0 again whenever somebody writes
// the rules anew. Its zero value is ready for use.
type Tally struct{ before, last Drops }

// Observe takes in the counters as the kernel has them now. One that is less than
// it was has begun again.
func (t *Tally) Observe(now Drops) {
	for reason, was := range t.last {
		if now[reason].Packets < was.Packets {
			t.keep(reason, was)
		}
	}
	t.last = maps.Clone(now)
}

// Reset says that all counters begin at 0. Whoever writes the rules anew has the
// old counters observed right before.
func (t *Tally) Reset() {
	for reason, was := range t.last {
		t.keep(reason, was)
	}
	t.last = nil
}

func (t *Tally) keep(reason Reason, c Count) {
	if t.before == nil {
		t.before = Drops{}
	}
	t.before.Add(reason, c)
}

// Sum returns what was dropped all in all.
func (t *Tally) Sum() Drops {
	sum := Drops{}
	for _, part := range []Drops{t.before, t.last} {
		for reason, count := range part {
			sum.Add(reason, count)
		}
	}
	return sum
}

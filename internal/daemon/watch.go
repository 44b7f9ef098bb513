package daemon

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"zwrm/internal/event"
	"zwrm/internal/firewall/nftables"
)

const (
	// pollEvery is how often one looks for settings that the kernel does not tell of,
	// rulesEvery for such rules, which takes two programs.
	pollEvery  = 500 * time.Millisecond
	rulesEvery = time.Second
	// pollPerVM makes that be done less often with hundreds of VMs: a look takes some 4 µs
	// of a processor for each.
	pollPerVM = 1800 * time.Microsecond
)

// watchRules has the rules compared whenever another program changed some: a restart of
// Docker or a reload of ufw may have taken ours away. iptables-legacy changes rules
// without an event, and so does a kernel without nf_tables.
func (d *Daemon) watchRules(ctx context.Context) error {
	d.blind.Store(strings.Contains(d.dataplane.Version(), "legacy"))
	changes, err := nftables.Watch(ctx)
	if err != nil {
		d.blind.Store(true)
		d.log.Warn("changes of rules are found by looking only", "every", rulesEvery, "error", err)
	}
	for {
		select {
		case change, ok := <-changes:
			switch {
			case !ok && ctx.Err() == nil:
				d.blind.Store(true)
				d.log.Warn("the kernel tells of changed rules no more; they are found by looking", "every", rulesEvery)
				changes = nil
			case ok && !d.made(change.PID):
				d.reconciler.SuspectRules(event.Culprit{PID: change.PID, Program: change.Program})
				d.suspect()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// made reports whether this zwrmd made a change, by a thread of its own or by a
// program that it ran.
func (d *Daemon) made(pid int) bool {
	if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", pid)); err == nil {
		return true
	}
	return d.dataplane.made(pid)
}

// watchLinks returns the task that has links, addresses, routes and settings compared
// that somebody changed. While links are left to make since the start it does not watch,
// since the kernel would tell of each step of each; what somebody changed meanwhile is
// found by looking at everything behind that.
func (d *Daemon) watchLinks(left bool) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		if left {
			select {
			case <-d.stood:
			case <-ctx.Done():
				return nil
			}
		}
		notices, err := d.kernel.Watch(ctx)
		if err != nil {
			d.log.Warn("changes of links are found by looking only", "every", repairEvery, "error", err)
			return wait(ctx)
		}
		if left {
			d.reconciler.SuspectAll()
			d.suspect()
		}
		for batch := range notices {
			if d.reconciler.Notice(batch...) {
				d.suspect()
			}
		}
		if ctx.Err() == nil {
			d.log.Warn("the kernel tells of changed links no more; they are found by looking", "every", repairEvery)
		}
		return wait(ctx)
	}
}

// wait returns when ctx ends.
func wait(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// poll looks for changes that the kernel does not tell of: of settings, and where it
// does not tell of those, of rules.
func (d *Daemon) poll(ctx context.Context) error {
	var settings, rules time.Time // were looked at last
	for sleep(ctx, pollEvery) {
		suspicious := false
		if time.Since(settings) >= pollPerVM*time.Duration(d.reconciler.Members()) {
			var err error
			if suspicious, err = d.reconciler.Poll(ctx); err != nil && ctx.Err() == nil {
				d.log.Warn("settings not looked at", "error", err)
			}
			settings = time.Now()
		}
		if d.blind.Load() && time.Since(rules) >= rulesEvery {
			rules = time.Now()
			d.reconciler.SuspectRules(event.Culprit{})
			suspicious = true
		}
		if suspicious {
			d.suspect()
		}
	}
	return nil
}

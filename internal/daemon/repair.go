package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"zwrm/internal/firewall/nftables"
)

const (
	// repairEvery is the time between two full comparisons of kernel and plan, for
	// what no event tells of.
	repairEvery = 30 * time.Second
	// settle is how long after a foreign change of rules one looks what it did. A
	// program that starts or reloads makes many in a row.
	settle = 100 * time.Millisecond
)

// watch asks for a comparison whenever another program changed rules: a restart of
// Docker or a reload of ufw may have taken ours away. iptables-legacy changes rules
// without an event, and so does a kernel without nf_tables.
func (d *Daemon) watch(ctx context.Context) error {
	changes, err := nftables.Watch(ctx)
	if err != nil {
		d.log.Warn("changes of rules are found by looking only", "every", repairEvery, "error", err)
	}
	for {
		select {
		case change, ok := <-changes:
			switch {
			case !ok && ctx.Err() == nil:
				d.log.Warn("the kernel tells of changed rules no more; they are found by looking", "every", repairEvery)
				changes = nil
			case ok && !d.made(change.PID):
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

// suspect asks for a comparison soon. Many wishes are one.
func (d *Daemon) suspect() {
	select {
	case d.suspicion <- struct{}{}:
	default:
	}
}

// keep returns the task that keeps the kernel at the plan: it first makes the links
// that are left to make since the start, while requests come in already.
func (n network) keep(left bool) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		if left {
			n.makeLinks(ctx)
		}
		return n.repair(ctx)
	}
}

// makeLinks brings the links to the plan. What fails is tried again with each repair.
func (n network) makeLinks(ctx context.Context) {
	_, err := n.daemon.reconciler.Sync(ctx)
	err = errors.Join(err, n.fleet.Reconnect(context.WithoutCancel(ctx), n.daemon.reconciler.Rebuilt()))
	switch {
	case ctx.Err() != nil: // told to end; the next start makes the rest
	case err != nil:
		n.daemon.log.Error("not all links stand", "error", err)
	default:
		n.daemon.log.Info("links stand")
	}
}

// repair compares kernel and plan when something may have changed, and from time
// to time.
func (n network) repair(ctx context.Context) error {
	ticker := time.NewTicker(repairEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-n.daemon.suspicion:
			if !sleep(ctx, settle) {
				return nil
			}
			select { // what changed meanwhile is seen now
			case <-n.daemon.suspicion:
			default:
			}
		case <-ctx.Done():
			return nil
		}
		if _, err := n.Repair(ctx); err != nil && ctx.Err() == nil {
			n.daemon.log.Error("network not mended", "error", err)
		}
	}
}

// sleep waits, and reports whether ctx has not ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

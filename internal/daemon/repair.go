package daemon

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// repairEvery is the time between two comparisons of everything, just in case: had
	// the kernel no room to tell of a change, it says so, and nobody waits for this.
	repairEvery = 30 * time.Second
	// repairPerVM makes there be fewer with thousands of VMs: each takes some 16 µs of a
	// processor for a VM. How long one took is no measure, since it waits for whoever
	// changes links.
	repairPerVM = 10 * time.Millisecond
	// firstRetry is the time until the next one if the last has failed: VMs may be
	// without a network. It doubles each time, up to the other.
	firstRetry = time.Second
	// settle is how long after a change by somebody else one looks what it did. A
	// program that starts or reloads makes many in a row.
	settle = 100 * time.Millisecond
)

// suspect has something looked at soon. Many wishes are one.
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
		wait := n.daemon.nextRepair()
		if left && !n.makeLinks(ctx) {
			wait = firstRetry
		}
		return n.repair(ctx, wait)
	}
}

// nextRepair returns how long it is to the next comparison of everything.
func (d *Daemon) nextRepair() time.Duration {
	return max(repairEvery, repairPerVM*time.Duration(d.reconciler.Members()))
}

// makeLinks brings the links to the plan, and reports whether all stand. What fails is
// tried again with each repair.
func (n network) makeLinks(ctx context.Context) bool {
	_, err := n.daemon.reconciler.Sync(ctx)
	close(n.daemon.stood) // before VMs are restarted, which may take minutes
	err = errors.Join(err, n.fleet.Reconnect(context.WithoutCancel(ctx), n.daemon.reconciler.Rebuilt()))
	switch {
	case ctx.Err() != nil: // told to end; the next start makes the rest
	case err != nil:
		n.daemon.log.Error("not all links stand", "error", err)
	default:
		n.daemon.log.Info("links stand")
	}
	return err == nil
}

// repair compares kernel and plan when something may have changed, and from time
// to time: all of it after wait for the first time.
func (n network) repair(ctx context.Context, wait time.Duration) error {
	var restarts sync.WaitGroup // of VMs; they hold up no mending
	defer restarts.Wait()
	everything, retry := time.NewTimer(wait), firstRetry
	defer everything.Stop()
	later := time.NewTimer(repairEvery)
	defer later.Stop()
	pause := settle
	for {
		all := false
		select {
		case <-everything.C:
			all = true
		case <-later.C:
		case <-n.daemon.suspicion:
			if !sleep(ctx, pause) {
				return nil
			}
			select { // what changed meanwhile is seen now
			case <-n.daemon.suspicion:
			default:
			}
		case <-ctx.Done():
			return nil
		}
		began := time.Now()
		wait, err := n.mend(ctx, all)
		if err != nil && ctx.Err() == nil {
			n.daemon.log.Error("network not mended", "error", err)
		}
		switch {
		case all && err == nil:
			everything.Reset(n.daemon.nextRepair())
			retry = firstRetry
		case all:
			everything.Reset(retry)
			retry = min(2*retry, repairEvery)
		}
		// However fast somebody changes something, half of the time is not spent on it.
		pause = settle + time.Since(began)
		if wait > 0 {
			later.Reset(wait)
		}
		restarts.Go(func() { n.reconnect(ctx) })
	}
}

// mend mends what differs: what is suspected to, or all. wait is as of
// reconcile.Reconciler.Mend.
func (n network) mend(ctx context.Context, all bool) (wait time.Duration, err error) {
	if all {
		_, err = n.daemon.reconciler.Repair(ctx)
	} else {
		wait, err = n.daemon.reconciler.Mend(ctx)
	}
	n.fleet.Avoid(n.daemon.reconciler.Strays()...)
	return wait, err
}

// reconnect restarts VMs whose TAP was made anew. It is done to its end: no VM is left
// with half a restart.
func (n network) reconnect(ctx context.Context) {
	if err := n.fleet.Reconnect(context.WithoutCancel(ctx), n.daemon.reconciler.Rebuilt()); err != nil {
		n.daemon.log.Error("VMs that lost their TAPs did not all restart", "error", err)
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

package reconcile

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"zwrm/internal/firewall"
	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/plan"
)

// settleLinks is how long a link must have been left alone before it is compared with
// the plan: a change of ours takes less, and is no drift.
const settleLinks = 50 * time.Millisecond

// firstRetry is how long what could not be mended waits for the next try, twice as
// long each time, up to lastRetry.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// Repair is Sync, noted as a mending of something that somebody else changed. It
// looks at everything, and waits for nothing.
func (r *Reconciler) Repair(ctx context.Context) ([]firewall.Difference, error) {
	end, err := r.alone(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	r.endFights()
	started, known := time.Now(), r.docket.takeAll()
	findings, err := r.sync(ctx)
	r.note(started, known, findings, err)
	if err != nil {
		r.docket.putBack(known)
	}
	return findings, err
}

// Mend compares with the plan what is suspected not to be as it should be, which costs
// little however many VMs there are, and mends it. What somebody changes again and
// again is mended after a while only. wait is how long until there is more to do; 0: no
// more until the next suspicion.
func (r *Reconciler) Mend(ctx context.Context) (wait time.Duration, err error) {
	end, err := r.alone(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	r.endFights()
	started := time.Now()
	r.mu.Lock()
	due, wait := r.docket.take(started, settleLinks, r.fights.held)
	r.mu.Unlock()
	if due.empty() {
		return wait, nil
	}
	if due.all != nil && due.base != nil {
		// Forwarding switched off is a change of every link as well, and one setting of
		// ours is all that lacks.
		err = r.mendKnown(ctx, started, suspects{base: due.base, rules: due.all})
	}
	if err == nil {
		err = r.mendKnown(ctx, started, due)
	}
	if err == nil {
		r.failed = 0
		if wait == 0 && r.Notice() { // it came up meanwhile
			wait = time.Millisecond
		}
		return wait, nil
	}
	r.docket.putBack(due)
	r.failed++
	return min(firstRetry<<min(r.failed-1, 5), lastRetry), err
}

// mendKnown mends what differs of suspects, and tells of it.
func (r *Reconciler) mendKnown(ctx context.Context, started time.Time, due suspects) error {
	findings, err := r.mend(ctx, due)
	r.note(started, due, findings, err)
	return err
}

// mend mends in the order that opens nothing: rules stand before packets are forwarded
// and before links are opened.
func (r *Reconciler) mend(ctx context.Context, due suspects) (all []firewall.Difference, err error) {
	if due.all != nil {
		return r.sync(ctx)
	}
	if due.rules != nil {
		if all, err = r.mendRules(ctx); err != nil {
			return all, err
		}
	}
	if due.base != nil {
		found, err := r.mendBase(ctx)
		if all = append(all, found...); err != nil {
			return all, err
		}
	}
	if len(due.links) > 0 {
		found, err := r.mendLinks(ctx, due.names())
		return append(all, found...), err
	}
	return all, nil
}

// mendBase sees to settings, the bridge and the external interface.
func (r *Reconciler) mendBase(ctx context.Context) ([]firewall.Difference, error) {
	names := []string{r.Uplink().Name}
	if r.network.Bridge.Enabled {
		names = append(names, r.network.Bridge.Name)
	}
	have, err := r.links.LinksNamed(ctx, names...)
	if err != nil {
		return nil, err
	}
	r.seeUplink(have)
	want := plan.Base(r.network, r.Uplink())
	found, err := r.compareSettings(want.Sysctls)
	if err != nil {
		return nil, err
	}
	bridge, _ := diffBridge(want.Bridge, have)
	if found = append(found, bridge...); len(found) == 0 {
		return nil, nil
	}
	return found, r.applySettings(ctx, want, found)
}

// mendRules sees to rules. Apps come and go meanwhile, and wait with theirs; what is
// known of them in memory is what the rules are to be.
func (r *Reconciler) mendRules(ctx context.Context) ([]firewall.Difference, error) {
	r.rules.Lock()
	defer r.rules.Unlock()
	policy := r.policy()
	found, err := r.compareRules(ctx, policy)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	if err := r.applyRules(ctx, policy, func() []ipam.Slot { return slices.Collect(maps.Keys(r.roster.home)) }); err != nil {
		return found, err
	}
	return found, r.cutOff(ctx, policy)
}

// mendLinks sees to certain links. At first it looks without holding anybody up, and
// may see a change of ours half done: what differs then is looked at again while there
// is none.
func (r *Reconciler) mendLinks(ctx context.Context, names []string) ([]firewall.Difference, error) {
	diff, err := r.compareLinks(ctx, names)
	if err != nil || len(diff.findings)+len(diff.standing) == 0 {
		return nil, err
	}
	if diff, err = r.prepareLinks(ctx, names); err != nil || len(diff.findings) == 0 {
		return diff.findings, err
	}
	return diff.findings, r.applyLinks(ctx, diff)
}

// prepareLinks compares certain links while nobody changes any, and closes what must
// not be open.
func (r *Reconciler) prepareLinks(ctx context.Context, names []string) (linkDiff, error) {
	r.changes.Lock()
	defer r.changes.Unlock()
	diff, err := r.compareLinks(ctx, names)
	if err != nil {
		return linkDiff{}, err
	}
	r.observe(&diff, false)
	r.begin(diff)
	if len(diff.findings) == 0 {
		return diff, nil
	}
	if err := r.unassign(ctx, diff.shut); err != nil {
		return diff, err
	}
	r.rules.Lock()
	defer r.rules.Unlock()
	// As in applyBase: before a link is made or opened.
	if err := r.firewall.Apply(ctx, firewall.Build(r.policy())); err != nil {
		return diff, fmt.Errorf("apply rules: %w", err)
	}
	return diff, nil
}

// compareLinks compares certain links with the plan.
func (r *Reconciler) compareLinks(ctx context.Context, names []string) (linkDiff, error) {
	have, err := r.links.LinksNamed(ctx, names...)
	if err != nil {
		return linkDiff{}, err
	}
	var slots []ipam.Slot
	for _, name := range names {
		if slot, ok := ipam.ParseTAP(name); ok {
			slots = append(slots, slot)
		}
	}
	if len(slots) == 0 && len(have) == 0 {
		return linkDiff{}, nil
	}
	// One that somebody renamed has its slot in its address.
	at := make(map[string]host.Link, len(have))
	for _, link := range have {
		at[link.Name] = link
	}
	for name := range renamedLinks(r.network.Layout, at) {
		if slot, _ := ipam.ParseTAP(name); !slices.Contains(slots, slot) {
			slots = append(slots, slot)
		}
	}
	var want []plan.Link
	if len(slots) > 0 {
		vms, err := r.rows(ctx, slots...)
		if err != nil {
			return linkDiff{}, err
		}
		want = plan.ForVMs(r.network, r.Uplink(), vms).Links
	}
	return diffLinks(r.network.Layout, want, have, r.stocked(map[ipam.Slot]struct{}{})), nil
}

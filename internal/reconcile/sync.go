package reconcile

import (
	"context"
	"fmt"
	"time"

	"zwrm/internal/event"
	"zwrm/internal/firewall"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
)

// Check compares the kernel with what it should be, and changes nothing.
func (r *Reconciler) Check(ctx context.Context) ([]firewall.Difference, error) {
	r.changes.Lock()
	defer r.changes.Unlock()
	_, _, findings, err := r.compare(ctx)
	return findings, err
}

// Stand makes all of the network but links: it closes what is open and should not
// be, then sets rules, settings and bridge. From here on nothing passes that must
// not, and Open, Close and Remove work; links that are missing or have to go are
// left for Sync, since with thousands of them that takes its time. It returns all
// that it found, links included.
func (r *Reconciler) Stand(ctx context.Context) ([]firewall.Difference, error) {
	end, err := r.alone(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	_, findings, err := r.stand(ctx)
	return findings, err
}

// Sync compares the kernel with what it should be and mends what differs. What
// is wrong is closed before rules are touched, and opened after. It goes on
// behind a step that fails, so that one broken link holds up no other, and
// returns what it found together with the errors.
//
// Links are done some at a time, and requests get their turn in between.
func (r *Reconciler) Sync(ctx context.Context) ([]firewall.Difference, error) {
	end, err := r.alone(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	links, findings, err := r.stand(ctx)
	if err != nil {
		return findings, err
	}
	return findings, r.applyLinks(ctx, links)
}

// alone waits until no other Sync is under way.
func (r *Reconciler) alone(ctx context.Context) (end func(), err error) {
	select {
	case r.syncing <- struct{}{}:
		return func() { <-r.syncing }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the comparison under way: %w", context.Cause(ctx))
	}
}

// stand does what Stand does, and returns what is left to do.
func (r *Reconciler) stand(ctx context.Context) (linkDiff, []firewall.Difference, error) {
	r.changes.Lock()
	defer r.changes.Unlock()
	want, links, findings, err := r.compare(ctx)
	if err != nil {
		return linkDiff{}, nil, fmt.Errorf("compare the network: %w", err)
	}
	r.adopt(want, links)
	switch {
	case len(findings) > 0:
		err = r.applyBase(ctx, want, links)
	case !r.applied:
		// An earlier zwrmd left all as it should be. The firewall takes changes only
		// to rules that it was given, which writes nothing where they stand.
		err = r.applyRules(ctx, want)
	}
	return links, findings, err
}

// Repair is Sync, noted as a mending of something that somebody else changed.
func (r *Reconciler) Repair(ctx context.Context) ([]firewall.Difference, error) {
	findings, err := r.Sync(ctx)
	if len(findings) == 0 {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drift += len(findings)
	r.last = &Repair{At: time.Now(), Differences: findings}
	for _, f := range findings {
		r.log.Warn("network mended", "object", f.Object, "wanted", f.Wanted, "found", f.Found)
		r.events.Publish(event.Repair, f.Object, fmt.Sprintf("wanted %s, found %s", f.Wanted, f.Found))
	}
	return findings, err
}

// Drift returns how many differences Repair mended, and its last mending, nil
// when there was none.
func (r *Reconciler) Drift() (int, *Repair) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.drift, r.last
}

// compare reads the whole state of the kernel against the plan.
func (r *Reconciler) compare(ctx context.Context) (plan.Host, linkDiff, []firewall.Difference, error) {
	vms, err := r.rows(ctx)
	if err != nil {
		return plan.Host{}, linkDiff{}, nil, fmt.Errorf("read VMs: %w", err)
	}
	want := plan.ForVMs(r.network, r.uplink, vms)
	have, err := r.links.Links(ctx)
	if err != nil {
		return want, linkDiff{}, nil, fmt.Errorf("read links: %w", err)
	}
	var findings []firewall.Difference
	for _, sysctl := range want.Sysctls {
		value, err := r.settings.Sysctl(sysctl.Name)
		if err != nil {
			return want, linkDiff{}, nil, fmt.Errorf("read sysctl %q: %w", sysctl.Name, err)
		}
		if value != sysctl.Value {
			findings = append(findings, firewall.Difference{Object: "sysctl " + sysctl.Name, Wanted: sysctl.Value, Found: value})
		}
	}
	bridge, leftovers := diffBridge(want.Bridge, have)
	findings = append(findings, bridge...)
	rules, err := r.firewall.Diff(ctx, firewall.Build(want.Policy))
	if err != nil {
		return want, linkDiff{}, nil, fmt.Errorf("read rules: %w", err)
	}
	findings = append(findings, rules...)
	links := diffLinks(want.Links, have)
	links.leftovers = leftovers
	return want, links, append(findings, links.findings...), nil
}

// adopt takes the plan for what the short path counts on from here, and begins to
// note which links that path changes.
func (r *Reconciler) adopt(want plan.Host, links linkDiff) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.touched)
	r.pending = len(links.work) + len(links.orphans)
	clear(r.members)
	for _, link := range want.Links {
		slot, ok := ipam.ParseTAP(link.Name)
		if !ok || link.Group == model.GroupUnassigned {
			continue
		}
		if r.members[link.Group] == nil {
			r.members[link.Group] = map[ipam.Slot]struct{}{}
		}
		r.members[link.Group][slot] = struct{}{}
	}
}

// applyBase brings all but links to the plan. What must not be open is closed first,
// and the drop rules are whole before a link is made or opened; should they fail,
// nothing is opened.
func (r *Reconciler) applyBase(ctx context.Context, want plan.Host, links linkDiff) error {
	if err := r.unassign(ctx, links.shut); err != nil {
		return fmt.Errorf("close links: %w", err)
	}
	for _, sysctl := range want.Sysctls {
		if err := r.settings.SetSysctl(sysctl.Name, sysctl.Value); err != nil {
			return fmt.Errorf("set sysctl %q: %w", sysctl.Name, err)
		}
	}
	if want.Bridge != nil {
		if err := r.settings.EnsureBridge(ctx, want.Bridge.Name, want.Bridge.Address, plan.BridgeAlias); err != nil {
			return fmt.Errorf("make bridge %q: %w", want.Bridge.Name, err)
		}
	}
	if err := r.applyRules(ctx, want); err != nil {
		return err
	}
	if !want.Policy.Private {
		// Connections made while private networking was on would live on as established.
		if err := r.settings.ForgetBetween(ctx, want.Policy.Subnet); err != nil {
			return fmt.Errorf("forget connections between VMs: %w", err)
		}
	}
	if err := r.links.DeleteLinks(ctx, links.leftovers...); err != nil {
		return fmt.Errorf("delete bridge of an earlier configuration: %w", err)
	}
	return nil
}

func (r *Reconciler) applyRules(ctx context.Context, want plan.Host) error {
	if err := r.firewall.Apply(ctx, firewall.Build(want.Policy)); err != nil {
		return fmt.Errorf("apply rules: %w", err)
	}
	r.applied = true
	// Until now packets may have passed that the rules drop. The links of no VM are
	// closed by now, and nobody can have got their slots.
	names := make([]string, len(want.Links))
	for i, link := range want.Links {
		names[i] = link.Name
	}
	return r.settings.ForgetOthers(ctx, want.Policy.Subnet, r.guests(names)...)
}

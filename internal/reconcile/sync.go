package reconcile

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"zwrm/internal/event"
	"zwrm/internal/firewall"
	"zwrm/internal/host"
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

// Sync compares the kernel with what it should be and mends what differs. What
// is wrong is closed before rules are touched, and opened after. It goes on
// behind a step that fails, so that one broken link holds up no other, and
// returns what it found together with the errors.
func (r *Reconciler) Sync(ctx context.Context) ([]firewall.Difference, error) {
	r.changes.Lock()
	defer r.changes.Unlock()
	want, links, findings, err := r.compare(ctx)
	if err != nil {
		return nil, fmt.Errorf("compare the network: %w", err)
	}
	r.adopt(want)
	switch {
	case len(findings) > 0:
		return findings, r.apply(ctx, want, links)
	case !r.applied:
		// An earlier zwrmd left all as it should be. The firewall takes changes only
		// to rules that it was given, which writes nothing where they stand.
		return nil, r.applyRules(ctx, want)
	}
	return nil, nil
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

// adopt takes the plan for what the short path counts on from here.
func (r *Reconciler) adopt(want plan.Host) {
	r.mu.Lock()
	defer r.mu.Unlock()
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

// apply brings the kernel to the plan. The drop rules are whole before a link is
// made or opened; should they fail, nothing is opened.
func (r *Reconciler) apply(ctx context.Context, want plan.Host, links linkDiff) error {
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
	return r.applyLinks(ctx, links)
}

func (r *Reconciler) applyRules(ctx context.Context, want plan.Host) error {
	if err := r.firewall.Apply(ctx, firewall.Build(want.Policy)); err != nil {
		return fmt.Errorf("apply rules: %w", err)
	}
	r.applied = true
	return nil
}

func (r *Reconciler) applyLinks(ctx context.Context, links linkDiff) error {
	var errs []error
	broken := map[string]bool{}
	for _, link := range links.build {
		if err := r.links.CreateTAP(ctx, tap(link)); err != nil {
			broken[link.Name] = true
			errs = append(errs, err)
		}
	}
	r.noteRebuilt(links.missing, broken)
	for group, members := range links.regroup {
		var names []string
		for _, link := range members {
			if !broken[link.Name] {
				names = append(names, link.Name)
			}
		}
		errs = append(errs, r.links.SetGroup(ctx, group, names...))
	}
	if len(links.orphans) > 0 {
		errs = append(errs, r.deleteOrphans(ctx, links.orphans))
	}
	return errors.Join(errs...)
}

// noteRebuilt keeps in mind which TAPs were made anew.
func (r *Reconciler) noteRebuilt(missing []plan.Link, broken map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, link := range missing {
		if slot, ok := ipam.ParseTAP(link.Name); ok && !broken[link.Name] {
			r.rebuilt = append(r.rebuilt, slot)
		}
	}
}

// Rebuilt returns the slots whose TAP was missing and made anew since the last
// call. A VMM that had the old one open has no network until it opens the new one.
func (r *Reconciler) Rebuilt() []ipam.Slot {
	r.mu.Lock()
	defer r.mu.Unlock()
	slots := r.rebuilt
	r.rebuilt = nil
	return slots
}

func (r *Reconciler) deleteOrphans(ctx context.Context, orphans []host.Link) error {
	names := make([]string, 0, len(orphans))
	guests := make([]netip.Addr, 0, len(orphans))
	for _, link := range orphans {
		names = append(names, link.Name)
		if slot, ok := ipam.ParseTAP(link.Name); ok && int(slot) < r.network.Layout.Capacity() {
			guests = append(guests, r.network.Layout.Guest(slot))
		}
	}
	return errors.Join(r.settings.Forget(ctx, guests...), r.links.DeleteLinks(ctx, names...))
}

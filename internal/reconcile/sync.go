package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"golang.org/x/sync/errgroup"

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
	c, err := r.compare(ctx)
	if err != nil {
		return nil, err
	}
	r.regard(&c.links)
	return slices.Concat(c.findings(), c.links.standing), nil
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
	return r.sync(ctx)
}

// sync is Sync by the one who is alone.
func (r *Reconciler) sync(ctx context.Context) ([]firewall.Difference, error) {
	links, findings, err := r.stand(ctx)
	if err != nil {
		return findings, err
	}
	return findings, r.applyLinks(ctx, links)
}

// alone waits until nobody else compares and mends.
func (r *Reconciler) alone(ctx context.Context) (end func(), err error) {
	select {
	case r.syncing <- struct{}{}:
		return func() { <-r.syncing }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the comparison under way: %w", context.Cause(ctx))
	}
}

// stand does what Stand does, and returns what is left to do. The first one, which is a
// start of zwrmd, is undone when it fails. A later one is not: what it has mended of
// somebody else's changes is better than what was there.
func (r *Reconciler) stand(ctx context.Context) (linkDiff, []firewall.Difference, error) {
	r.changes.Lock()
	defer r.changes.Unlock()
	c, err := r.compare(ctx)
	if err != nil {
		return linkDiff{}, nil, fmt.Errorf("compare the network: %w", err)
	}
	first := !r.applied
	r.adopt(c.vms)
	r.observe(&c.links, true)
	findings := c.findings()
	switch {
	case len(findings) > 0:
		if err = r.applyBase(ctx, c); err == nil && forwards(c.base) {
			err = r.compareAgain(ctx, &c)
			findings = c.findings()
		}
	case !r.applied:
		// An earlier zwrmd left all as it should be. The firewall takes changes only
		// to rules that it was given, which writes nothing where they stand.
		err = r.applyRules(ctx, c.want.Policy, c.slots)
	}
	if err != nil && first {
		err = errors.Join(err, r.takeBack(ctx, c))
	}
	r.begin(c.links)
	r.take(c.spare)
	return c.links, findings, err
}

// forwards reports whether forwarding was switched on: that changes a setting of every
// link.
func forwards(base []firewall.Difference) bool {
	return slices.ContainsFunc(base, func(d firewall.Difference) bool { return d.Object == "sysctl net/ipv4/ip_forward" })
}

// compareAgain compares the links once more.
func (r *Reconciler) compareAgain(ctx context.Context, c *comparison) error {
	have, err := r.links.Links(ctx)
	if err != nil {
		return fmt.Errorf("read links: %w", err)
	}
	c.spare = map[ipam.Slot]struct{}{}
	c.links = diffLinks(r.network.Layout, c.want.Links, have, r.stocked(c.spare))
	r.observe(&c.links, true)
	return nil
}

// comparison is the plan and how the kernel differs from it.
type comparison struct {
	vms   []model.VM
	want  plan.Host
	base  []firewall.Difference // of settings and the bridge
	rules []firewall.Difference
	links linkDiff
	spare map[ipam.Slot]struct{} // whose TAP is a spare one
	up    bool                   // a TAP of ours is up
}

// findings returns all that can be mended.
func (c comparison) findings() []firewall.Difference {
	return slices.Concat(c.base, c.rules, c.links.findings)
}

// slots returns those of all VMs.
func (c comparison) slots() []ipam.Slot {
	slots := make([]ipam.Slot, len(c.vms))
	for i, vm := range c.vms {
		slots[i] = vm.Slot
	}
	return slots
}

// compare reads the whole state of the kernel against the plan.
func (r *Reconciler) compare(ctx context.Context) (c comparison, err error) {
	var have []host.Link
	var reads errgroup.Group // side by side, since changes wait for it
	reads.Go(func() (err error) {
		if c.vms, err = r.rows(ctx); err != nil {
			err = fmt.Errorf("read VMs: %w", err)
		}
		return err
	})
	reads.Go(func() (err error) {
		if have, err = r.links.Links(ctx); err != nil {
			err = fmt.Errorf("read links: %w", err)
		}
		return err
	})
	if err := reads.Wait(); err != nil {
		return c, err
	}
	c.up = isUp(have)
	r.seeUplink(have)
	c.want = plan.ForVMs(r.network, r.Uplink(), c.vms)
	if c.base, err = r.compareSettings(c.want.Sysctls); err != nil {
		return c, err
	}
	bridge, leftovers := diffBridge(c.want.Bridge, have)
	c.base = append(c.base, bridge...)
	if c.rules, err = r.compareRules(ctx, c.want.Policy); err != nil {
		return c, err
	}
	c.spare = map[ipam.Slot]struct{}{}
	c.links = diffLinks(r.network.Layout, c.want.Links, have, r.stocked(c.spare))
	c.links.leftovers = leftovers
	return c, nil
}

// compareSettings compares the settings of the host. One of a link that is not there
// is as good as set.
func (r *Reconciler) compareSettings(want []plan.Sysctl) ([]firewall.Difference, error) {
	var findings []firewall.Difference
	for _, sysctl := range want {
		value, err := r.settings.Sysctl(sysctl.Name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read sysctl %q: %w", sysctl.Name, err)
		}
		if value != sysctl.Value {
			findings = append(findings, firewall.Difference{Object: "sysctl " + sysctl.Name, Wanted: sysctl.Value, Found: value})
		}
	}
	return findings, nil
}

func (r *Reconciler) compareRules(ctx context.Context, want firewall.Policy) ([]firewall.Difference, error) {
	found, err := r.firewall.Diff(ctx, firewall.Build(want))
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	return found, nil
}

// adopt takes the rows for what the short path counts on from here.
func (r *Reconciler) adopt(vms []model.VM) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.roster = newRoster()
	for _, vm := range vms {
		if vm.State.Open() {
			r.roster.add(vm)
		}
	}
}

// applyBase brings all but links to the plan. What must not be open is closed first,
// and the drop rules are whole before a link is made or opened; should they fail,
// nothing is opened.
func (r *Reconciler) applyBase(ctx context.Context, c comparison) error {
	if err := r.unassign(ctx, c.links.shut); err != nil {
		return fmt.Errorf("close links: %w", err)
	}
	if err := r.applySettings(ctx, c.want, c.base); err != nil {
		return err
	}
	first := !r.applied
	if err := r.applyRules(ctx, c.want.Policy, c.slots); err != nil {
		return err
	}
	if first || len(c.rules) > 0 {
		if err := r.cutOff(ctx, c.want.Policy); err != nil {
			return err
		}
	}
	if err := r.links.DeleteLinks(ctx, c.links.leftovers...); err != nil {
		return fmt.Errorf("delete bridge of an earlier configuration: %w", err)
	}
	return nil
}

// applySettings sets the settings that differ, and the bridge.
func (r *Reconciler) applySettings(ctx context.Context, want plan.Host, findings []firewall.Difference) error {
	differs := func(sysctl plan.Sysctl) bool {
		return slices.ContainsFunc(findings, func(f firewall.Difference) bool { return f.Object == "sysctl "+sysctl.Name })
	}
	for _, sysctl := range want.Sysctls {
		if !differs(sysctl) {
			continue
		}
		if err := r.settings.SetSysctl(sysctl.Name, sysctl.Value); err != nil {
			return fmt.Errorf("set sysctl %q: %w", sysctl.Name, err)
		}
	}
	if want.Bridge == nil {
		return nil
	}
	if err := r.settings.EnsureBridge(ctx, want.Bridge.Name, want.Bridge.Address, plan.BridgeAlias); err != nil {
		return fmt.Errorf("make bridge %q: %w", want.Bridge.Name, err)
	}
	return nil
}

// applyRules makes the rules what they are to be. slots, called with r.mu held, returns
// those of all VMs that may send and receive then.
func (r *Reconciler) applyRules(ctx context.Context, policy firewall.Policy, slots func() []ipam.Slot) error {
	if err := r.firewall.Apply(ctx, firewall.Build(policy)); err != nil {
		return fmt.Errorf("apply rules: %w", err)
	}
	r.applied = true
	// Until now packets may have passed that the rules drop. The links of no VM are
	// closed by now, and nobody gets their slots and is counted in meanwhile.
	r.mu.Lock()
	defer r.mu.Unlock()
	var guests []netip.Addr
	for _, slot := range slots() {
		guests = append(guests, r.network.Layout.Guest(slot))
	}
	return r.settings.ForgetOthers(ctx, policy.Subnet, guests...)
}

// cutOff ends connections between VMs that were made while private networking was on,
// or while rules of ours lacked: they would live on as established.
func (r *Reconciler) cutOff(ctx context.Context, policy firewall.Policy) error {
	if policy.Private {
		return nil
	}
	if err := r.settings.ForgetBetween(ctx, policy.Subnet); err != nil {
		return fmt.Errorf("forget connections between VMs: %w", err)
	}
	return nil
}

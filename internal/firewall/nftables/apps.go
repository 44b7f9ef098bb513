package nftables

import (
	"context"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/nftables/nfnetlink"
)

// AddApps lets the VMs of each app reach each other. It does nothing while
// private networking is off, and nothing for apps that have their element. When
// it fails, no app counts as added.
func (d *Dataplane) AddApps(ctx context.Context, apps ...firewall.App) error {
	return d.changeApps(ctx, firewall.Adding(apps))
}

// RemoveApps takes back what AddApps did. Apps without an element are no error.
func (d *Dataplane) RemoveApps(ctx context.Context, apps ...firewall.App) error {
	return d.changeApps(ctx, firewall.Removing(apps))
}

// changeApps changes which apps have an element. While the kernel is known to hold
// what it should, that is one transaction with an element for each change, and
// nothing is read. Otherwise, and when that fails, all is compared and mended: the
// kernel may have made the change although its answer was lost.
func (d *Dataplane) changeApps(ctx context.Context, changes firewall.AppSet) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.applied {
		return firewall.ErrNotApplied
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !d.want.set {
		return nil
	}
	b, before := d.appBatch(changes)
	if d.inSync && len(before) == 0 {
		return nil
	}
	d.want.apps.Change(changes)
	if n := len(d.want.apps); n > setSize {
		d.want.apps.Change(before)
		return tooMany(n)
	}
	if d.inSync && d.commit(opApps, b) == nil {
		return nil
	}
	d.inSync = false
	if err := d.apply(); err != nil {
		d.want.apps.Change(before) // the kernel may hold either; the next change looks
		return err
	}
	return nil
}

// appBatch returns the requests that make the changes, and what the changed apps
// were before.
func (d *Dataplane) appBatch(changes firewall.AppSet) (b nfnetlink.Batch, before firewall.AppSet) {
	before = firewall.AppSet{}
	gone, come := firewall.AppSet{}, firewall.AppSet{}
	for group, is := range changes {
		was := d.want.apps[group]
		if was == is {
			continue
		}
		before[group] = was
		if was != (firewall.App{}) {
			gone[group] = was
		}
		if is != (firewall.App{}) {
			come[group] = is
		}
	}
	b.DeleteElements(ourTable, setName, elementsOf(gone))
	b.AddElements(ourTable, setName, elementsOf(come))
	return b, before
}

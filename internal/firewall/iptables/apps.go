package iptables

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"zwrm/internal/firewall"
)

// AddApps lets the VMs of each app reach each other. It does nothing while
// private networking is off, and nothing for apps that have their rule. When it
// fails, no app counts as added.
func (d *Dataplane) AddApps(ctx context.Context, apps ...firewall.App) error {
	return d.changeApps(ctx, firewall.Adding(apps))
}

// RemoveApps takes back what AddApps did. Apps without a rule are no error.
func (d *Dataplane) RemoveApps(ctx context.Context, apps ...firewall.App) error {
	return d.changeApps(ctx, firewall.Removing(apps))
}

// changeApps changes which apps have a rule. While the kernel is known to hold
// what it should, that is one iptables-restore with a line for each change and
// nothing is read. Otherwise, and when that fails because somebody else changed
// the chain, all rules are compared and mended.
func (d *Dataplane) changeApps(ctx context.Context, changes firewall.AppSet) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.applied {
		return firewall.ErrNotApplied
	}
	if len(d.base.Stage(firewall.Private, firewall.IPv4)) == 0 {
		return nil
	}
	text, before, err := d.appScript(changes)
	if err != nil || (d.inSync && len(before) == 0) {
		return err
	}
	d.apps.Change(changes)
	if d.inSync && d.tools[0].Restore(ctx, text) == nil {
		return nil
	}
	d.inSync = false
	if err := d.apply(ctx, d.ruleset()); err != nil {
		d.apps.Change(before) // the kernel may hold either; the next change looks
		return err
	}
	return nil
}

// appScript returns the input of iptables-restore that makes the changes, and
// what the changed apps were before. A new rule goes to the top of the chain,
// since its last rule drops.
func (d *Dataplane) appScript(changes firewall.AppSet) (text string, before firewall.AppSet, err error) {
	var s script
	before = firewall.AppSet{}
	s.line("*%s", Filter)
	for _, group := range slices.Sorted(maps.Keys(changes)) {
		was, is := d.apps[group], changes[group]
		if was == is {
			continue
		}
		before[group] = was
		for _, step := range []struct {
			verb string
			app  firewall.App
		}{{"-D %s %s", was}, {"-I %s 1 %s", is}} {
			if step.app == (firewall.App{}) {
				continue
			}
			spec, err := renderRule(firewall.AppRule(step.app), firewall.IPv4)
			if err != nil {
				return "", nil, err
			}
			s.line(step.verb, PrivateChain, spec)
		}
	}
	s.line("COMMIT")
	return s.String(), before, nil
}

// ruleset puts back together what split took apart: apps first in their stage.
func (d *Dataplane) ruleset() firewall.Ruleset {
	apps := slices.SortedFunc(maps.Values(d.apps), func(a, b firewall.App) int { return cmp.Compare(a.Group, b.Group) })
	var rules []firewall.Rule
	for _, r := range d.base.Rules {
		if r.Stage == firewall.Private {
			for _, app := range apps {
				rules = append(rules, firewall.AppRule(app))
			}
			apps = nil
		}
		rules = append(rules, r)
	}
	return firewall.Ruleset{Rules: rules}
}

package firewalltest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"zwrm/internal/firewall"
)

// Kernel has rules, in memory. Dataplanes that come and go keep them.
type Kernel struct {
	// Fail is called with the name of each operation before it begins; its error
	// becomes that of the operation, which then does nothing. It is set before the
	// Kernel is used.
	//
	//	apply          add web blog
	//	diff           remove web blog
	//	remove all
	Fail func(op string) error

	mu    sync.Mutex
	rules []firewall.Rule
}

// Dataplane keeps the rules of a Kernel. Like the real ones it takes apps only
// once it was given the rules that theirs are to be among. It is safe for
// concurrent use.
type Dataplane struct {
	kernel  *Kernel
	applied bool // guarded by kernel.mu, as is the next
	private bool // the rules have a stage for those of apps
}

// NewKernel returns a Kernel without rules.
func NewKernel() *Kernel { return &Kernel{} }

// Open returns a dataplane of a zwrmd that begins.
func (k *Kernel) Open() *Dataplane { return &Dataplane{kernel: k} }

// Change changes the rules, as somebody else does.
func (k *Kernel) Change(change func(rules []firewall.Rule) []firewall.Rule) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rules = change(k.rules)
}

// Rules returns the rules in their order.
func (k *Kernel) Rules() []firewall.Rule {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.rules)
}

// Dump returns the rules as text: those of apps, which may stand in any order, by
// name, then the others in their order.
func (k *Kernel) Dump() string {
	apps, rest := split(k.Rules())
	slices.Sort(apps)
	var b strings.Builder
	for _, rule := range append(apps, rest...) {
		b.WriteString("rule " + rule + "\n")
	}
	return b.String()
}

// do makes a change, unless Fail has it fail.
func (k *Kernel) do(op string, change func() error) error {
	if k.Fail != nil {
		if err := k.Fail(op); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return change()
}

// Apply makes the rules those that are wanted.
func (d *Dataplane) Apply(_ context.Context, want firewall.Ruleset) error {
	return d.kernel.do("apply", func() error {
		d.applied, d.private = true, len(want.Stage(firewall.Private, firewall.IPv4)) > 0
		d.kernel.rules = slices.Clone(want.Rules)
		return nil
	})
}

// AddApps adds the apps' rules, all or none; while private networking is off, none.
func (d *Dataplane) AddApps(_ context.Context, apps ...firewall.App) error {
	return d.change("add", apps, func(rule firewall.Rule) {
		rules := d.kernel.rules
		if slices.Contains(rules, rule) {
			return
		}
		private := slices.IndexFunc(rules, func(r firewall.Rule) bool { return r.Stage == firewall.Private })
		d.kernel.rules = slices.Insert(rules, max(private, 0), rule)
	})
}

// RemoveApps removes the apps' rules: all or none.
func (d *Dataplane) RemoveApps(_ context.Context, apps ...firewall.App) error {
	return d.change("remove", apps, func(rule firewall.Rule) {
		d.kernel.rules = slices.DeleteFunc(d.kernel.rules, func(r firewall.Rule) bool { return r == rule })
	})
}

func (d *Dataplane) change(op string, apps []firewall.App, change func(rule firewall.Rule)) error {
	for _, app := range apps {
		op += " " + string(app.Name)
	}
	return d.kernel.do(op, func() error {
		switch {
		case !d.applied:
			return firewall.ErrNotApplied
		case !d.private:
			return nil
		}
		for _, app := range apps {
			change(firewall.AppRule(app))
		}
		return nil
	})
}

// Diff returns the rules that are missing, too many, or in the wrong order.
func (d *Dataplane) Diff(_ context.Context, want firewall.Ruleset) (found []firewall.Difference, err error) {
	err = d.kernel.do("diff", func() error {
		found = diff(want.Rules, d.kernel.rules)
		return nil
	})
	return found, err
}

func diff(want, have []firewall.Rule) (found []firewall.Difference) {
	for _, rule := range want {
		if !slices.Contains(have, rule) {
			found = append(found, firewall.Difference{Object: "rule", Wanted: rule.String(), Found: "missing"})
		}
	}
	for _, rule := range have {
		if !slices.Contains(want, rule) {
			found = append(found, firewall.Difference{Object: "rule", Wanted: "none", Found: rule.String()})
		}
	}
	if len(found) == 0 && !inOrder(want, have) {
		found = append(found, firewall.Difference{Object: "rules", Wanted: "each once and in order", Found: "another order"})
	}
	return found
}

// inOrder reports whether the rules are the same ones in the same order, those of
// apps in any.
func inOrder(want, have []firewall.Rule) bool {
	if len(want) != len(have) {
		return false
	}
	for i, rule := range have {
		if rule != want[i] && (rule.App == "" || want[i].App == "") {
			return false
		}
	}
	return true
}

// Remove removes all rules.
func (d *Dataplane) Remove(context.Context) error {
	return d.kernel.do("remove all", func() error {
		d.applied, d.kernel.rules = false, nil
		return nil
	})
}

// split returns the rules of apps and the others, as text.
func split(rules []firewall.Rule) (apps, rest []string) {
	for _, rule := range rules {
		if rule.App != "" {
			apps = append(apps, rule.String())
		} else {
			rest = append(rest, rule.String())
		}
	}
	return apps, rest
}

package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/xtables"
)

// Dataplane keeps rules in the kernel. It is safe for concurrent use.
type Dataplane struct {
	tools   []xtables.Tool // IPv4 first
	version string
	runner  xtables.Runner

	mu      sync.Mutex // one change at a time; guards what follows
	applied bool
	base    firewall.Ruleset // as last applied, without the rules of apps
	apps    firewall.AppSet
	inSync  bool // the kernel held base and apps when last seen

	// counting keeps who reads counters and who has them begin again apart, and guards
	// the tallies. Changes of apps, which come with every VM, do not wait for it.
	counting sync.Mutex
	tallies  map[string]*firewall.Tally // by tool
}

// Version returns what iptables says of itself, as in "iptables v1.8.9 (nf_tables)".
func (d *Dataplane) Version() string { return d.version }

// Made reports whether a process was one of the last programs that were run here.
func (d *Dataplane) Made(pid int) bool {
	p, ok := d.runner.(*xtables.Processes)
	return ok && p.Ran(pid)
}

// Preflight returns a *ForeignError, or several joined, when a chain with a name
// of ours holds rules and none of them is ours. It changes nothing.
func (d *Dataplane) Preflight(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tools {
		found, err := d.read(ctx, t)
		if err != nil {
			return err
		}
		if err := found.foreign(t.Name); err != nil {
			return err
		}
	}
	return nil
}

// Apply brings the kernel to exactly these rules and changes nothing if it is
// there. Each table changes at once, so there is no moment in which a packet
// finds half of the rules. A *ForeignError changes nothing.
func (d *Dataplane) Apply(ctx context.Context, want firewall.Ruleset) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applied, d.inSync = true, false
	d.base, d.apps = want.SplitApps()
	return d.apply(ctx, want)
}

// Diff returns what is not as wanted, one rule, chain or jump each. Rules of apps
// may stand in any order.
func (d *Dataplane) Diff(ctx context.Context, want firewall.Ruleset) ([]firewall.Difference, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []firewall.Difference
	for _, t := range d.tools {
		found, err := d.read(ctx, t)
		if err != nil {
			return nil, err
		}
		wanted, err := render(want, t.Family)
		if err != nil {
			return nil, err
		}
		all = append(all, differences(t.Name, wanted, found)...)
	}
	if len(all) > 0 {
		d.inSync = false // the next change of apps looks before it writes
	}
	return all, nil
}

// Remove removes every chain, rule and jump of ours. What others made stays,
// with one consequence: a chain of ours that a foreign rule calls cannot go. It
// is emptied, and the error names the rule.
func (d *Dataplane) Remove(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applied, d.inSync = false, false
	var errs []error
	for _, t := range d.tools { // what fails in one family stays for the next try, and stops no other
		if err := d.remove(ctx, t); err != nil {
			errs = append(errs, fmt.Errorf("remove the rules of %s: %w", t.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (d *Dataplane) remove(ctx context.Context, t xtables.Tool) error {
	found, err := d.read(ctx, t)
	if err != nil {
		return err
	}
	if s := removeScript(found); s != "" {
		if err := t.Restore(ctx, s); err != nil {
			return err
		}
	}
	var kept []error
	for _, name := range tables() {
		for _, chain := range found[name].ours() {
			if user := found[name].user(chain); user != "" {
				kept = append(kept, fmt.Errorf("chain %q of table %q is empty now but stays, since a foreign rule calls it: delete the rule %q and try again",
					string(chain), string(name), user))
			}
		}
	}
	return errors.Join(kept...)
}

// Dump returns our part of the kernel's rules in the form of `iptables -S`.
func (d *Dataplane) Dump(ctx context.Context) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out string
	for _, t := range d.tools {
		found, err := d.read(ctx, t)
		if err != nil {
			return "", err
		}
		if text := dump(t.Name, found); text != "" && out != "" {
			out += "\n" + text
		} else {
			out += text
		}
	}
	return out, nil
}

// apply writes the rules where they differ from what the kernel has. It looks at
// every family before it writes the first: a foreign chain in one of them must
// leave the others alone as well.
func (d *Dataplane) apply(ctx context.Context, want firewall.Ruleset) error {
	scripts := make([]string, len(d.tools))
	for i, t := range d.tools {
		wanted, err := render(want, t.Family)
		if err != nil {
			return err
		}
		found, err := d.read(ctx, t)
		if err != nil {
			return err
		}
		if err := found.foreign(t.Name); err != nil {
			return err
		}
		if len(differences(t.Name, wanted, found)) > 0 {
			scripts[i] = applyScript(wanted, found)
		}
	}
	for i, t := range slices.Backward(d.tools) { // IPv6 is only ever closed, so it goes first
		if scripts[i] == "" {
			continue
		}
		if err := d.write(ctx, t, scripts[i]); err != nil {
			return fmt.Errorf("write the rules of %s: %w", t.Name, err)
		}
	}
	d.inSync = true
	return nil
}

// write writes rules anew. Counters begin again; they were read just now.
func (d *Dataplane) write(ctx context.Context, t xtables.Tool, script string) error {
	d.counting.Lock()
	defer d.counting.Unlock()
	d.tally(t).Reset()
	return t.Restore(ctx, script)
}

// read returns what the kernel holds.
func (d *Dataplane) read(ctx context.Context, t xtables.Tool) (snapshot, error) {
	d.counting.Lock()
	defer d.counting.Unlock()
	text, err := t.Save(ctx, "--counters")
	if err != nil {
		return nil, err
	}
	found, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("read the rules of %s: %w", t.Name, err)
	}
	d.tally(t).Observe(found.drops())
	return found, nil
}

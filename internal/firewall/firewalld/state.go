package firewalld

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// State is what people want to know of firewalld.
type State struct {
	Running   bool // whether it answers; if not, the rest is zero
	Version   string
	Backend   string // what it makes its rules with: "nftables" or "iptables"
	Bound     bool   // firewalld lets VMs pass
	Permanent bool   // the binding is in the permanent configuration, where zwrmd leaves it
	Conflicts []Conflict
}

// State asks firewalld for its state.
func (z *Zone) State(ctx context.Context) (State, error) {
	ctx, cancel := z.bus.within(ctx)
	defer cancel()
	found, err := z.look(ctx)
	if err != nil || !found.running {
		return State{}, err
	}
	s := State{Running: true, Bound: found.bound && len(found.conflicts) == 0, Conflicts: found.conflicts}
	if s.Version, err = z.bus.property(ctx, path, service, "version"); err == nil {
		s.Backend, err = z.bus.property(ctx, config, configCalls, "FirewallBackend")
	}
	if err == nil {
		s.Permanent, err = z.permanent(ctx)
	}
	switch {
	case errors.Is(err, errAbsent): // it ended meanwhile
		return State{}, nil
	case err != nil:
		return State{}, fmt.Errorf("ask firewalld for its state: %w", err)
	}
	return s, nil
}

// Conflict is that somebody put interfaces that are TAPs, or could be, into a zone
// that does not accept what they send.
type Conflict struct {
	Interfaces Interfaces
	Zone       ZoneName
	Target     Target // of the zone
}

// What says what is where.
func (c Conflict) What() string {
	if c.Zone == trusted {
		return fmt.Sprintf("zone %q of firewalld has the target %q, so it does not let VMs pass", c.Zone, c.Target)
	}
	return fmt.Sprintf("interfaces %q are in zone %q of firewalld, whose target is %q, so it does not let VMs pass", c.Interfaces, c.Zone, c.Target)
}

// Mend returns the commands after which there is no such conflict, one per line.
func (c Conflict) Mend() string {
	if c.Zone == trusted {
		return fmt.Sprintf("firewall-cmd --permanent --zone=%s --set-target=%s\nfirewall-cmd --reload", c.Zone, accept)
	}
	return fmt.Sprintf("firewall-cmd --zone=%[1]s --remove-interface=%[2]s\nfirewall-cmd --permanent --zone=%[1]s --remove-interface=%[2]s", c.Zone, c.Interfaces)
}

// ConflictError says that firewalld was left as it is.
type ConflictError struct{ Conflicts []Conflict }

// Error tells all conflicts.
func (e *ConflictError) Error() string {
	var texts []string
	for _, c := range e.Conflicts {
		texts = append(texts, c.What())
	}
	return strings.Join(texts, "; ")
}

// snapshot is what firewalld says about TAPs.
type snapshot struct {
	running   bool
	bound     bool       // a zone has exactly the TAPs
	conflicts []Conflict // in the order of zones and interfaces
}

// look asks firewalld where TAPs are. Beside a conflict the binding is not made:
// firewalld goes by the binding that was made last, so ours would undo theirs.
func (z *Zone) look(ctx context.Context) (snapshot, error) {
	found, err := z.read(ctx)
	switch {
	case errors.Is(err, errAbsent):
		return snapshot{}, nil
	case err != nil:
		return snapshot{}, fmt.Errorf("ask firewalld for the zone of interfaces %q: %w", taps, err)
	}
	return found, nil
}

func (z *Zone) read(ctx context.Context) (snapshot, error) {
	zones, err := z.bus.zones(ctx)
	if err != nil {
		return snapshot{}, err
	}
	found := snapshot{running: true}
	for zone := range zones {
		found.bound = found.bound || zones.has(zone, taps)
	}
	if !found.bound { // trusted is where they are going to be
		zones[trusted] = bindings{"interfaces": append(zones[trusted]["interfaces"], string(taps))}
	}
	for _, zone := range slices.Sorted(maps.Keys(zones)) {
		inside := zones.taps(zone)
		if len(inside) == 0 {
			continue
		}
		target, err := z.bus.target(ctx, zone)
		if err != nil {
			return snapshot{}, err
		}
		for _, i := range inside {
			if target != accept {
				found.conflicts = append(found.conflicts, Conflict{i, zone, target})
			}
		}
	}
	return found, nil
}

// bindings are what a zone is for, by kind: "interfaces" and "sources".
type bindings map[string][]string

// zones are the zones that are in use.
type zones map[ZoneName]bindings

// taps returns the interfaces of a zone that are TAPs or could be.
func (z zones) taps(zone ZoneName) []Interfaces {
	var all []Interfaces
	for _, name := range z[zone]["interfaces"] {
		if i := Interfaces(name); i.overlap() {
			all = append(all, i)
		}
	}
	slices.Sort(all)
	return all
}

func (z zones) has(zone ZoneName, i Interfaces) bool { return slices.Contains(z.taps(zone), i) }

// overlap reports whether a name is possible that both i and taps mean.
func (i Interfaces) overlap() bool {
	prefix, wild := strings.CutSuffix(string(i), "+")
	ours := strings.TrimSuffix(string(taps), "+")
	return strings.HasPrefix(prefix, ours) || wild && strings.HasPrefix(ours, prefix)
}

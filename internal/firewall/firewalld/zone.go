package firewalld

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"zwrm/internal/effect"
	"zwrm/internal/firewall"
	"zwrm/internal/ipam"
)

// The side effects of a Zone.
const (
	opBind   effect.Op = "firewalld.bind-interfaces"
	opUnbind effect.Op = "firewalld.unbind-interfaces"
)

// ZoneName is a zone of firewalld.
type ZoneName string

// Interfaces names an interface or, when it ends in +, all whose names begin with
// what is before that.
type Interfaces string

const (
	// trusted is one of the zones without which firewalld does not start.
	trusted ZoneName = "trusted"
	// taps are the TAPs of all VMs.
	taps Interfaces = ipam.TAPPrefix + "+"
)

// Target is what a zone does with packets that no rule of it is about.
type Target string

// accept is the target by which packets pass. The others are "default", "DROP" and
// "%%REJECT%%" (firewalld.dbus(5)).
const accept Target = "ACCEPT"

// Zone keeps the TAPs in a zone of firewalld that accepts them. It is safe for
// concurrent use. Where firewalld does not run, its methods do and find nothing.
type Zone struct {
	bus    *bus
	hook   effect.Hook // of changes
	change sync.Mutex  // held by what looks first and then writes
}

// Open connects to the message bus; empty is the system's. That there is no bus, or
// no firewalld on it, is no error: both are found when they appear. ctx bounds the
// attempt to connect. The hook, which may be nil, is told of what the Zone changes.
func Open(ctx context.Context, address Address, hook effect.Hook) (*Zone, error) {
	z := &Zone{hook: hook, bus: openBus(ctx, address, patience)}
	if err := ctx.Err(); err != nil {
		z.bus.close()
		return nil, err
	}
	return z, nil
}

// Close disconnects. The binding stays as it is.
func (z *Zone) Close() error {
	z.bus.close()
	return nil
}

// Changed receives when the binding may be gone or be possible again: firewalld
// answers after it was started or did not answer, or ended or reloaded, or somebody
// changed the zone of TAPs. Many changes are one.
func (z *Zone) Changed() <-chan struct{} { return z.bus.changed }

// Diff returns what Apply would mend: that the binding is missing. A conflict is for
// people to mend, who learn of it from State. A firewalld that has been started and
// does not answer yet is taken for none.
func (z *Zone) Diff(ctx context.Context) ([]firewall.Difference, error) {
	ctx, cancel := z.bus.within(ctx)
	defer cancel()
	found, err := z.look(ctx)
	if err != nil || !found.running || found.bound || len(found.conflicts) > 0 {
		return nil, err
	}
	return []firewall.Difference{{Object: "firewalld interface " + string(taps), Wanted: "zone " + string(trusted), Found: "no zone"}}, nil
}

// Apply makes the binding if it is missing. The rules that decide about VMs must stand
// before. A *ConflictError changes nothing.
func (z *Zone) Apply(ctx context.Context) error {
	z.change.Lock()
	defer z.change.Unlock()
	ctx, cancel := z.bus.within(ctx)
	defer cancel()
	z.bus.want(true)
	found, err := z.look(ctx)
	switch {
	case err != nil || !found.running:
		return err
	case len(found.conflicts) > 0:
		return &ConflictError{found.conflicts}
	case found.bound:
		return nil
	}
	switch err := effect.Do(z.hook, opBind, func() error { return z.bus.addInterface(ctx, trusted, taps) }); {
	case errors.Is(err, errAbsent), is(err, alreadySet):
		return nil
	case err != nil:
		return fmt.Errorf("put interfaces %q into zone %q of firewalld: %w", taps, trusted, err)
	}
	return nil
}

// Remove takes the binding away if it is ours. A firewalld that ended is no error; one
// that was killed has left its rules in the kernel, with the binding among them.
func (z *Zone) Remove(ctx context.Context) error {
	z.change.Lock()
	defer z.change.Unlock()
	ctx, cancel := z.bus.within(ctx)
	defer cancel()
	z.bus.want(false)
	err := z.remove(ctx)
	if err == nil || errors.Is(err, errAbsent) {
		return nil
	}
	return fmt.Errorf("take interfaces %q out of zone %q of firewalld: %w", taps, trusted, err)
}

func (z *Zone) remove(ctx context.Context) error {
	zones, err := z.bus.zones(ctx)
	if err != nil || !zones.has(trusted, taps) {
		return err
	}
	permanent, err := z.permanent(ctx)
	if err != nil || permanent {
		return err
	}
	err = effect.Do(z.hook, opUnbind, func() error { return z.bus.removeInterface(ctx, trusted, taps) })
	if is(err, inNoZone) || is(err, inOtherZone) { // somebody was faster
		return nil
	}
	return err
}

// permanent reports whether the permanent configuration has the binding. A zone may
// be there in several parts, named as in "trusted/site", and an interface in more than
// one of them: they are in one text, and words about that after them.
func (z *Zone) permanent(ctx context.Context) (bool, error) {
	text, err := z.bus.permanentZones(ctx, taps)
	for _, name := range strings.Fields(text) {
		if zone, _, _ := strings.Cut(name, "/"); ZoneName(zone) == trusted {
			return true, err
		}
	}
	return false, err
}

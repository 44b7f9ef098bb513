package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"zwrm/internal/host/netlink"
)

// maxMade is how many TAPs are made together: nobody else can make one meanwhile, nor
// start a program, sixteen times as long as one takes.
const maxMade = 16

// CreateTAP makes TAPs of different names, or brings existing ones of ours to what is asked for:
// persistent, root's, with a single queue and hardened (see Hardening), without IPv6, up,
// with exactly this IPv4 address. No descriptor stays open, so a VMM can open them
// by name. It ends behind one that fails; of the others each is whole or not there.
//
// A new TAP is in model.GroupUnassigned before it is up; an existing one keeps
// its group. A link of that name which is no TAP, or in no group of ours, is left
// alone, and the error wraps ErrForeign. When a step fails, a TAP that this call
// made is removed again. What was set is read back.
//
// Many are best made by one call, and those of callers who wait for each other are made
// together as well: with each address that it gets by itself, the kernel goes through
// all that there are (net/ipv4/devinet.c check_lifetime), on the processor of the one
// who gave it.
//
// A process that is killed in the middle leaves nothing, or TAPs that are ours,
// unassigned and thus closed, which the next call completes.
func (k *Kernel) CreateTAP(ctx context.Context, taps ...TAP) error {
	for some := range slices.Chunk(taps, maxMade) {
		o := &order{ctx: ctx, taps: some}
		if k.making.Do(o, o.fits, k.make); o.err != nil {
			return o.err
		}
	}
	return nil
}

// order is some TAPs that a caller wants.
type order struct {
	ctx  context.Context
	taps []TAP
	err  error
}

// fits reports whether an order can be carried out with others: one for a TAP that
// another is for as well has to find it whole.
func (o *order) fits(others []*order) bool {
	n := len(o.taps)
	for _, other := range others {
		n += len(other.taps)
		for _, tap := range other.taps {
			if slices.ContainsFunc(o.taps, func(t TAP) bool { return t.Name == tap.Name }) {
				return false
			}
		}
	}
	return n <= maxMade
}

// newTAP is one that was made and is not up yet.
type newTAP struct {
	TAP
	index int
	of    *order
}

// make carries orders out.
func (k *Kernel) make(all []*order) {
	k.changes.RLock()
	defer k.changes.RUnlock()
	// A program that is started meanwhile has our descriptor until it is executed, and
	// a VMM could not open the TAP until then.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	var made []newTAP
	for _, o := range all {
		for _, tap := range o.taps {
			index, err := k.createTAP(o.ctx, tap)
			if err != nil {
				o.fail(tap, err)
				break
			}
			if index != 0 {
				made = append(made, newTAP{tap, index, o})
			}
		}
	}
	k.raiseNew(made)
}

func (o *order) fail(tap TAP, err error) {
	o.err = errors.Join(o.err, fmt.Errorf("create TAP %q: %w", tap.Name, err))
}

// raiseNew gives new TAPs their address, brings them up and checks them. One that
// fails is removed again.
func (k *Kernel) raiseNew(taps []newTAP) {
	steps := make([][]*netlink.Request, len(taps))
	var all []*netlink.Request
	for i, tap := range taps {
		steps[i] = []*netlink.Request{addAddress(tap.index, tap.Address), bringUp(tap.index)}
		all = append(all, steps[i]...)
	}
	_ = k.change(k.route, opAddress, all...) // each request has its own error
	for i, tap := range taps {
		err := refusedAddress(tap.Address, steps[i])
		if err == nil {
			err = k.verify(tap.TAP)
		}
		if err != nil {
			tap.of.fail(tap.TAP, errors.Join(err, k.deleteNew(tap.Name)))
		}
	}
}

package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
)

// restOfLink is how long a closed TAP is left alone before it may become a spare one.
// Whatever was let through before it was closed has noted its connection by then.
const restOfLink = time.Second

// A deletion holds up whoever changes a link for some 10 ms, so those of many VMs are one:
// it waits until none left for a while, but no longer than restOfLink, nor for more than a
// number of them.
const (
	lull    = 50 * time.Millisecond
	maxLeft = 128
)

// stock is the TAPs of slots that no VM has: spare ones, made ahead of their VMs, and
// those that VMs have left and that are still to be cleaned.
type stock struct {
	size   int                    // how many spare ones there are to be
	spare  map[ipam.Slot]struct{} // ready to be handed out
	soiled map[ipam.Slot]time.Time
	given  map[ipam.Slot]bool // TAPs of VMs whose networks are not open yet; whether they are spare ones
	making ipam.Slot          // becomes a spare one
	made   chan struct{}      // closed when it is; nil: none is being made
}

func newStock(size int) stock {
	return stock{size: size, spare: map[ipam.Slot]struct{}{}, soiled: map[ipam.Slot]time.Time{}, given: map[ipam.Slot]bool{}}
}

// has reports whether the TAP of a slot is in stock, about to be, or given to a VM.
func (s *stock) has(slot ipam.Slot) bool {
	_, spare := s.spare[slot]
	_, soiled := s.soiled[slot]
	_, given := s.given[slot]
	return spare || soiled || given || s.made != nil && s.making == slot
}

// room returns how many spare TAPs lack.
func (s *stock) room() int {
	room := s.size - len(s.spare)
	if s.made != nil {
		room--
	}
	return max(0, room)
}

// Spares returns the slots whose TAP is made ahead of a VM, and how many more there are
// to be.
func (r *Reconciler) Spares() (ready []ipam.Slot, lack int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.stock.spare)), r.stock.room()
}

// Prepare makes a TAP ahead of its VM: closed, with all that a VM's has, so that Open
// only puts it into a group. It reports whether it did: not where there is no room for
// one more, and not of a slot that is in stock already or that a VM has got.
func (r *Reconciler) Prepare(ctx context.Context, slot ipam.Slot) (ready bool, err error) {
	r.changes.RLock()
	defer r.changes.RUnlock()
	if !r.beginSpare(slot) {
		return false, nil
	}
	defer func() { r.endSpare(slot, ready) }()
	// A VM's row is there before its network is opened, which waits for us from here on.
	vms, err := r.rows(ctx, slot)
	if err != nil || len(vms) > 0 {
		return false, err
	}
	tap := tap(plan.Spare(r.network, r.MTU(), slot))
	tap.Fresh = true
	if err := r.links.CreateTAP(ctx, tap); err != nil {
		return false, fmt.Errorf("make a spare TAP: %w", err)
	}
	return true, nil
}

func (r *Reconciler) beginSpare(slot ipam.Slot) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stock.has(slot) || r.stock.room() == 0 {
		return false
	}
	r.stock.making, r.stock.made = slot, make(chan struct{})
	r.touched[slot] = struct{}{} // or a Sync that has seen an older link there deletes it
	return true
}

func (r *Reconciler) endSpare(slot ipam.Slot, ready bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ready {
		r.stock.spare[slot] = struct{}{}
	}
	close(r.stock.made)
	r.stock.made = nil
}

// claim gives VMs the TAPs of their slots, of which nobody makes spare ones then. It
// returns the slots whose TAPs others have left and that are to be cleaned first.
func (r *Reconciler) claim(vms []model.VM) (soiled []ipam.Slot) {
	r.touch(vms)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, vm := range vms {
		for r.stock.made != nil && r.stock.making == vm.Slot {
			made := r.stock.made
			r.mu.Unlock()
			<-made
			r.mu.Lock()
		}
		_, spare := r.stock.spare[vm.Slot]
		delete(r.stock.spare, vm.Slot)
		r.stock.given[vm.Slot] = spare
		if _, ok := r.stock.soiled[vm.Slot]; ok {
			soiled = append(soiled, vm.Slot)
		}
	}
	return soiled
}

// given returns those of the VMs that have got spare TAPs, or the others.
func (r *Reconciler) given(vms []model.VM, spare bool) []model.VM {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(vms), func(vm model.VM) bool { return r.stock.given[vm.Slot] != spare })
}

// distrust has all TAPs of VMs made that were spare ones. It reports whether there were
// any.
func (r *Reconciler) distrust(vms []model.VM) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := false
	for _, vm := range vms {
		found = found || r.stock.given[vm.Slot]
		r.stock.given[vm.Slot] = false
	}
	return found
}

// settle is the end of claim: the networks of the VMs are open, or nothing is left of them.
func (r *Reconciler) settle(vms []model.VM) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, vm := range vms {
		delete(r.stock.given, vm.Slot)
	}
}

// Unmake gives up what Make has made, since the VMs get no rows. Links are left to Clean,
// as those of VMs that are gone, but need no rest: nothing was let through them.
func (r *Reconciler) Unmake(vms ...model.VM) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, vm := range vms {
		if r.stock.given[vm.Slot] {
			r.stock.spare[vm.Slot] = struct{}{}
		} else {
			r.stock.soiled[vm.Slot] = time.Now().Add(-restOfLink)
		}
		delete(r.stock.given, vm.Slot)
	}
}

// giveBack makes spare TAPs of those that nobody has opened since they were claimed.
func (r *Reconciler) giveBack(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	if err := r.unassign(ctx, names); err != nil {
		return errors.Join(err, r.links.DeleteLinks(ctx, names...))
	}
	clean, err := r.links.Recycle(ctx, plan.SpareAlias, names...)
	if err != nil {
		return errors.Join(err, r.links.DeleteLinks(ctx, names...))
	}
	r.putIn(clean)
	return r.links.DeleteLinks(ctx, without(names, clean)...)
}

// soil notes that VMs have left their TAPs.
func (r *Reconciler) soil(vms []model.VM) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, vm := range vms {
		r.stock.soiled[vm.Slot] = time.Now()
	}
}

// Clean takes away what VMs that are gone have left in the kernel: their connections and
// neighbour entries, and their TAPs but for as many as lack as spare ones. wait is how
// long until there is more to do; 0: until the next Remove.
func (r *Reconciler) Clean(ctx context.Context) (wait time.Duration, err error) {
	r.changes.RLock()
	defer r.changes.RUnlock()
	drop, keep, wait := r.due(time.Now())
	return wait, r.clean(ctx, drop, keep)
}

// due returns the slots whose TAPs are to be deleted now, and those whose TAPs are to
// become spare ones. As many as there is room for rest before that.
func (r *Reconciler) due(now time.Time) (drop, keep []ipam.Slot, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	room, first, last := r.stock.room(), now, time.Time{} // of those to drop
	later := func(left time.Duration) {
		if wait == 0 || left < wait {
			wait = left
		}
	}
	for _, slot := range slices.Sorted(maps.Keys(r.stock.soiled)) {
		since := r.stock.soiled[slot]
		if room == 0 {
			drop = append(drop, slot)
			if since.Before(first) {
				first = since
			}
			if since.After(last) {
				last = since
			}
			continue
		}
		room--
		if left := restOfLink - now.Sub(since); left > 0 {
			later(left)
		} else {
			keep = append(keep, slot)
		}
	}
	if rest := min(lull-now.Sub(last), restOfLink-now.Sub(first)); len(drop) > 0 && len(drop) < maxLeft && rest > 0 {
		later(rest)
		drop = nil
	}
	return drop, keep, wait
}

// clean cleans the TAPs that VMs have left. Those to keep become spare ones, if they are
// as good as new and nobody has them open; the others are deleted.
func (r *Reconciler) clean(ctx context.Context, drop, keep []ipam.Slot) error {
	if len(drop)+len(keep) == 0 {
		return nil
	}
	r.cleaning.Lock()
	defer r.cleaning.Unlock()
	drop, keep = r.stillSoiled(drop), r.stillSoiled(keep)
	names := tapsOf(slices.Concat(drop, keep))
	clean, err := r.recycle(ctx, keep)
	if err != nil {
		return err
	}
	if err := r.erase(ctx, without(names, clean), r.guests(names)); err != nil {
		return fmt.Errorf("clean up behind VMs: %w", err)
	}
	r.mu.Lock()
	for _, slot := range slices.Concat(drop, keep) {
		delete(r.stock.soiled, slot)
	}
	r.mu.Unlock()
	r.putIn(clean)
	return nil
}

// stillSoiled returns those that nobody has cleaned meanwhile.
func (r *Reconciler) stillSoiled(slots []ipam.Slot) []ipam.Slot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(slots), func(slot ipam.Slot) bool {
		_, ok := r.stock.soiled[slot]
		return !ok
	})
}

// recycle makes TAPs as good as new, and returns those that are.
func (r *Reconciler) recycle(ctx context.Context, slots []ipam.Slot) ([]string, error) {
	if len(slots) == 0 {
		return nil, nil
	}
	names, err := r.links.Recycle(ctx, plan.SpareAlias, tapsOf(slots)...)
	if err != nil {
		return nil, err
	}
	have, err := r.links.LinksNamed(ctx, names...)
	if err != nil {
		return nil, err
	}
	have = slices.DeleteFunc(have, func(h host.Link) bool { return !r.isSpare(h) })
	clean := make([]string, len(have))
	for i, h := range have {
		clean[i] = h.Name
	}
	return clean, nil
}

// isSpare reports whether a link is a spare TAP as it should be.
func (r *Reconciler) isSpare(h host.Link) bool {
	slot, ok := ipam.ParseTAP(h.Name)
	if !ok || int(slot) >= r.network.Layout.Capacity() || h.Alias != plan.SpareAlias || h.Opened {
		return false
	}
	var diff linkDiff
	diff.compare(plan.Spare(r.network, r.MTU(), slot), h)
	return len(diff.findings)+len(diff.standing) == 0
}

// stocked returns the test for links of no VM that are to be left as they are: what is
// still to be cleaned, and spare TAPs, which are noted in spare. Of the latter there may
// be as many as the stock has room for; those that are not in it yet are left by an
// earlier zwrmd.
func (r *Reconciler) stocked(spare map[ipam.Slot]struct{}) func(h host.Link) bool {
	r.mu.Lock()
	soiled, size := maps.Clone(r.stock.soiled), r.stock.size
	r.mu.Unlock()
	return func(h host.Link) bool {
		slot, ok := ipam.ParseTAP(h.Name)
		if _, is := soiled[slot]; ok && is {
			return h.Group == model.GroupUnassigned || h.Group == model.GroupCondemned
		}
		if len(spare) == size || !r.isSpare(h) {
			return false
		}
		spare[slot] = struct{}{}
		return true
	}
}

// take takes these spare TAPs for those that there are.
func (r *Reconciler) take(spare map[ipam.Slot]struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stock.spare = spare
}

// putIn notes spare TAPs, but for those that a VM has got meanwhile.
func (r *Reconciler) putIn(names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range names {
		slot, ok := ipam.ParseTAP(name)
		if _, given := r.stock.given[slot]; ok && !given { // or a VM's TAP is made anew now
			r.stock.spare[slot] = struct{}{}
		}
	}
}

func tapsOf(slots []ipam.Slot) []string {
	names := make([]string, len(slots))
	for i, slot := range slots {
		names[i] = slot.TAP()
	}
	return names
}

func without(names, some []string) []string {
	not := make(map[string]struct{}, len(some))
	for _, name := range some {
		not[name] = struct{}{}
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, ok := not[name]; return ok })
}

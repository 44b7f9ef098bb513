package reconcile

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"

	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
)

// maxAtOnce is how many links are done before requests get their turn: about 20 ms
// of making them, 60 ms of deleting.
const maxAtOnce = 64

// applyLinks makes, mends and opens links, and deletes those of no VM. A request
// that came in between has brought its links to what they should be by itself, and
// has perhaps taken the slot of one that was to be deleted: those are skipped.
func (r *Reconciler) applyLinks(ctx context.Context, links linkDiff) error {
	var errs []error
	for some := range slices.Chunk(links.work, maxAtOnce) {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, r.buildSome(ctx, some))
	}
	for some := range slices.Chunk(links.orphans, maxAtOnce) {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, r.deleteSome(ctx, some))
	}
	return errors.Join(errs...)
}

// buildSome makes and mends links, then opens them. The group is set last.
func (r *Reconciler) buildSome(ctx context.Context, some []linkWork) error {
	r.changes.Lock()
	defer r.changes.Unlock()
	defer r.progress(len(some))
	var errs []error
	var work []linkWork
	var taps []host.TAP
	for _, link := range some {
		if r.wasTouched(link.Name) {
			continue
		}
		if link.called != "" {
			if err := r.links.Rename(ctx, link.called, link.Name); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		if link.missing {
			r.miss(link.Link)
		}
		if link.build {
			tap := tap(link.Link)
			tap.Reroute = link.reroute
			taps = append(taps, tap)
		}
		work = append(work, link)
	}
	broken := r.createEach(ctx, taps)
	groups := map[model.Group][]string{}
	for _, link := range work {
		if err := broken[link.Name]; err != nil {
			errs = append(errs, err)
			continue
		}
		r.noteRebuilt(link.Name)
		if link.regroup {
			groups[link.Group] = append(groups[link.Group], link.Name)
		}
	}
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		errs = append(errs, r.links.SetGroup(ctx, group, groups[group]...))
	}
	return errors.Join(errs...)
}

// createEach makes TAPs together, and if one of them cannot be made, each by itself. It
// returns what is wrong with which.
func (r *Reconciler) createEach(ctx context.Context, taps []host.TAP) map[string]error {
	if len(taps) == 0 || r.links.CreateTAP(ctx, taps...) == nil {
		return nil
	}
	broken := map[string]error{}
	for _, tap := range taps {
		if err := r.links.CreateTAP(ctx, tap); err != nil {
			broken[tap.Name] = err
		}
	}
	return broken
}

// deleteSome deletes links of no VM. They were closed before.
func (r *Reconciler) deleteSome(ctx context.Context, some []host.Link) error {
	r.changes.Lock()
	defer r.changes.Unlock()
	defer r.progress(len(some))
	var names []string
	for _, link := range some {
		if !r.wasTouched(link.Name) {
			names = append(names, link.Name)
			r.lose(link.Name)
		}
	}
	return r.erase(ctx, names, r.guests(names))
}

// lose notes that a TAP, if it is a spare one, is none any more.
func (r *Reconciler) lose(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slot, ok := ipam.ParseTAP(name); ok {
		delete(r.stock.spare, slot)
	}
}

// guests returns the addresses of the guests behind TAPs.
func (r *Reconciler) guests(taps []string) []netip.Addr {
	guests := make([]netip.Addr, 0, len(taps))
	for _, name := range taps {
		if slot, ok := ipam.ParseTAP(name); ok && int(slot) < r.network.Layout.Capacity() {
			guests = append(guests, r.network.Layout.Guest(slot))
		}
	}
	return guests
}

// begin takes links for those that are to be done now, and begins to note which of them
// the short path changes meanwhile.
func (r *Reconciler) begin(links linkDiff) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.touched)
	r.pending = len(links.work) + len(links.orphans)
}

// touch notes that the short path changes the links of VMs. A VMM that is started
// behind it opens the TAP that is there then.
func (r *Reconciler) touch(vms []model.VM) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, vm := range vms {
		r.touched[vm.Slot] = struct{}{}
		delete(r.rebuilt, vm.Slot)
	}
}

// wasTouched reports whether the short path has changed a link since the comparison.
func (r *Reconciler) wasTouched(name string) bool {
	slot, ok := ipam.ParseTAP(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	_, touched := r.touched[slot]
	return ok && touched
}

// miss notes that a TAP is not there. That of a closed VM interests nobody: no VMM runs
// that had one.
func (r *Reconciler) miss(link plan.Link) {
	slot, ok := ipam.ParseTAP(link.Name)
	if !ok || link.Group == model.GroupUnassigned {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rebuilt[slot] = false
}

// noteRebuilt notes that a TAP is whole. If it was missed it was made anew, perhaps by
// an earlier try, which failed behind that.
func (r *Reconciler) noteRebuilt(name string) {
	slot, ok := ipam.ParseTAP(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, missed := r.rebuilt[slot]; ok && missed {
		r.rebuilt[slot] = true
	}
}

// Rebuilt returns the slots whose TAP was missing and made anew since the last
// call. A VMM that had the old one open has no network until it opens the new one.
func (r *Reconciler) Rebuilt() []ipam.Slot {
	r.mu.Lock()
	defer r.mu.Unlock()
	var slots []ipam.Slot
	for slot, made := range r.rebuilt {
		if made {
			slots = append(slots, slot)
			delete(r.rebuilt, slot)
		}
	}
	slices.Sort(slots)
	return slots
}

// Pending returns how many links are still to be made, mended or deleted, but for those
// that are made ahead.
func (r *Reconciler) Pending() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pending + len(r.stock.soiled)
}

func (r *Reconciler) progress(done int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending -= done
}

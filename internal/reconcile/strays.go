package reconcile

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"zwrm/internal/event"
	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// StrayRest is how long something that looks alive and that no row knows is left
// alone, at least. Rows may be lost, and a VM that runs is not deleted on a guess: it is
// cut off, which can be undone.
const StrayRest = 10 * time.Minute

// strays are what is not as it should be and left alone for now.
type strays struct {
	alive map[string]sighting // TAPs of no VM that a process has open, by name
	told  map[string]struct{} // objects
}

// sighting is the first time that a link was seen.
type sighting struct {
	index int
	since time.Time
}

// observe takes in which links of no VM there are. Those that a process has open are
// left out of what is deleted until a second look, long after the first. all says that
// these are all links, so that what is not among them is over.
func (r *Reconciler) observe(diff *linkDiff, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	alive, told := map[string]sighting{}, map[string]struct{}{}
	if !all {
		maps.Copy(alive, r.strays.alive)
		maps.Copy(told, r.strays.told)
	}
	diff.orphans = slices.DeleteFunc(diff.orphans, func(h host.Link) bool {
		if !h.Carrier {
			return false
		}
		seen, ok := r.strays.alive[h.Name]
		if !ok || seen.index != h.Index {
			seen = sighting{h.Index, now}
		}
		if now.Sub(seen.since) >= StrayRest {
			return false
		}
		alive[h.Name] = seen
		leaveAlone(diff, h, seen.since.Add(StrayRest))
		return true
	})
	for _, d := range diff.standing {
		told[d.Object] = struct{}{}
		if _, before := r.strays.told[d.Object]; !before {
			r.log.Warn("network not as it should be, and left so", "object", d.Object, "wanted", d.Wanted, "found", d.Found)
			r.events.Publish(event.Stray, d.Object, fmt.Sprintf("wanted %s, found %s", d.Wanted, d.Found))
		}
	}
	r.strays = strays{alive, told}
}

// regard leaves out of what is deleted what rests, without taking anything in.
func (r *Reconciler) regard(diff *linkDiff) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range diff.orphans {
		if seen, ok := r.strays.alive[h.Name]; ok && h.Carrier && seen.index == h.Index {
			leaveAlone(diff, h, seen.since.Add(StrayRest))
		}
	}
}

// leaveAlone makes of the finding about a link of no VM one that stands. Only that it
// is open is mended.
func leaveAlone(diff *linkDiff, h host.Link, until time.Time) {
	for i, d := range diff.findings {
		if d.Object != linkObject+h.Name {
			continue
		}
		standing := d
		standing.Found += fmt.Sprintf("; a process has it open, so it is cut off and stays until %s", until.UTC().Format(time.RFC3339))
		diff.standing = append(diff.standing, standing)
		if h.Group == model.GroupUnassigned {
			diff.findings = slices.Delete(diff.findings, i, i+1)
		} else {
			diff.findings[i].Wanted = "group " + model.GroupUnassigned.String() + ": no VM has this slot"
			diff.findings[i].Found = "group " + h.Group.String()
		}
		return
	}
}

// Strays returns the slots whose TAP a process has open although no VM has the slot:
// nobody else can have them meanwhile.
func (r *Reconciler) Strays() []ipam.Slot {
	r.mu.Lock()
	defer r.mu.Unlock()
	var slots []ipam.Slot
	for name := range r.strays.alive {
		if slot, ok := ipam.ParseTAP(name); ok {
			slots = append(slots, slot)
		}
	}
	return slots
}

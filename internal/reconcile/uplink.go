package reconcile

import (
	"fmt"

	"zwrm/internal/event"
	"zwrm/internal/host"
	"zwrm/internal/plan"
)

// Uplink returns what is known of the external interface.
func (r *Reconciler) Uplink() plan.Uplink {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.uplink
}

// seeUplink takes in how the external interface is, as far as it is among the links,
// and tells of what changed. Rules name it, so they hold whatever becomes of it, and
// its addresses are looked up with each packet that is masqueraded. With another MTU
// all TAPs are to be looked at.
func (r *Reconciler) seeUplink(have []host.Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	is := "gone"
	for _, link := range have {
		if link.Name != r.uplink.Name {
			continue
		}
		if is = "up"; !link.Up {
			is = "down"
		}
		if link.MTU == r.uplink.MTU {
			continue
		}
		message := fmt.Sprintf("mtu %d, was %d", link.MTU, r.uplink.MTU)
		if r.network.MTU == 0 {
			message += ": TAPs follow, guests when they are restarted"
			r.SuspectAll()
		}
		r.tellUplink(message)
		r.uplink.MTU = link.MTU
	}
	if is != r.uplinkIs && (r.uplinkIs != "" || is != "up") { // at the start it is no news that it is up
		r.tellUplink(is)
	}
	r.uplinkIs = is
}

func (r *Reconciler) tellUplink(message string) {
	r.log.Warn("external interface changed", "interface", r.uplink.Name, "is", message)
	r.events.Publish(event.Uplink, r.uplink.Name, message)
}

package reconcile

import (
	"context"
	"net/netip"
	"time"

	"zwrm/internal/event"
	"zwrm/internal/firewall"
	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
)

// Notice takes in what the kernel tells of links, whoever changed them, and reports
// whether something is to be looked at (see Mend). Our own changes end in what is
// wanted, and most so are found to be none by what is told of them: nothing is read.
func (r *Reconciler) Notice(notices ...host.Notice) (look bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.docket.mu.Lock()
	defer r.docket.mu.Unlock()
	now := time.Now()
	for _, n := range notices {
		r.notice(n, now)
	}
	return !r.docket.empty()
}

// SuspectRules has the rules looked at, since somebody changed some.
func (r *Reconciler) SuspectRules(by event.Culprit) { r.suspect(&r.docket.rules, by) }

// SuspectBase has the settings of the host, the bridge and the external interface
// looked at.
func (r *Reconciler) SuspectBase() { r.suspect(&r.docket.base, event.Culprit{}) }

// SuspectAll has everything looked at.
func (r *Reconciler) SuspectAll() { r.suspect(&r.docket.all, event.Culprit{}) }

func (r *Reconciler) suspect(what **suspect, by event.Culprit) {
	r.docket.mu.Lock()
	defer r.docket.mu.Unlock()
	mark(what, time.Now(), by)
}

// notice takes in one notice. r.mu and the docket are held.
func (r *Reconciler) notice(n host.Notice, now time.Time) {
	by := event.Culprit{PID: n.PID, Program: n.Program}
	slot, tap := ipam.ParseTAP(n.Name)
	tap = tap && int(slot) < r.network.Layout.Capacity()
	switch {
	case n.About == host.AboutLost:
		mark(&r.docket.all, now, by)
	case n.About == host.AboutRoute:
		r.noticeRoute(n, now)
	case n.Name == "" || n.Name == r.uplink.Name || n.Name == r.network.Bridge.Name:
		if n.About != host.AboutAddress || n.Name != r.uplink.Name {
			mark(&r.docket.base, now, by)
		}
	case n.About == host.AboutLink && !tap:
		if n.Link.Kind == host.KindTAP && n.Link.Group.Ours() {
			r.docket.link(n.Name, missing, now, by) // one of ours that somebody renamed
		}
	case !tap:
	case n.About == host.AboutNoLink:
		delete(r.stock.spare, slot)
		r.docket.link(n.Name, missing, now, by)
	case n.About == host.AboutLink:
		if r.asWanted(slot, n.Link) {
			r.docket.fine(n.Name)
		} else {
			r.docket.link(n.Name, itself, now, by)
		}
	case n.About == host.AboutAddress:
		if n.Gone || n.Address.Addr() != r.network.Layout.Gateway(slot) {
			r.docket.link(n.Name, missing, now, by)
		}
	case n.About == host.AboutSetting && n.Off:
		r.docket.link(n.Name, itself, now, by)
	}
}

// noticeRoute takes in that a route was removed, or leads elsewhere now.
func (r *Reconciler) noticeRoute(n host.Notice, now time.Time) {
	by := event.Culprit{PID: n.PID, Program: n.Program}
	if bridge := r.network.Bridge; bridge.Enabled && bridge.Subnet.Overlaps(n.Address) {
		mark(&r.docket.base, now, by)
	}
	if slot, ok := r.network.Layout.SlotOf(n.Address.Addr()); ok {
		r.docket.link(slot.TAP(), missing, now, by)
	}
}

// asWanted compares what a notice tells of a link with the plan, as far as memory has
// it: that it has no address or no route is not part of the notice.
func (r *Reconciler) asWanted(slot ipam.Slot, have host.Link) bool {
	vm := model.VM{Slot: slot, State: model.Running, App: r.roster.group(slot).App()}
	want := plan.VM(r.network, plan.MTU(r.network, r.uplink), vm)
	have.Addresses = []netip.Prefix{want.Address}
	var diff linkDiff
	diff.compare(want, have)
	return len(diff.findings) == 0
}

// policy returns the policy of all that is counted on, without reading rows. r.rules is
// locked: until the rules were made that, nobody counts on one that stood before.
func (r *Reconciler) policy() firewall.Policy {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.roster.ruled)
	policy := plan.Base(r.network, r.uplink).Policy
	policy.Apps = r.roster.social()
	return policy
}

// Members returns how many VMs may send and receive.
func (r *Reconciler) Members() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.roster.home)
}

// Poll looks at what the kernel has no notice of: settings of the host and of TAPs. It
// reports whether something is to be looked at.
func (r *Reconciler) Poll(ctx context.Context) (look bool, err error) {
	wrong, err := r.compareSettings(plan.Base(r.network, r.Uplink()).Sysctls)
	if err != nil {
		return false, err
	}
	if len(wrong) > 0 {
		r.SuspectBase()
	}
	links, err := r.links.Weakened(ctx)
	if err != nil {
		return len(wrong) > 0, err
	}
	var notices []host.Notice
	for _, link := range links {
		if _, ok := ipam.ParseTAP(link.Name); ok {
			notices = append(notices, host.Notice{About: host.AboutLink, Name: link.Name, Link: link})
		}
	}
	return r.Notice(notices...) || len(wrong) > 0, nil
}

package reconcile

import (
	"fmt"
	"strings"

	"zwrm/internal/firewall"
	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
)

// nothing is what a Difference has found where there is nothing.
const nothing = "missing"

// linkDiff is what has to be done to links to bring them to a plan.
type linkDiff struct {
	shut      []string              // in the wrong group, or nobody's: to be closed first
	work      []linkWork            // in the order of the plan
	orphans   []host.Link           // ours, but of no VM
	leftovers []string              // bridges of an earlier configuration
	findings  []firewall.Difference // each is mended by what is above
	standing  []firewall.Difference // left as they are
}

// linkWork is what is to be done to one link of a VM.
type linkWork struct {
	plan.Link
	called  string // its name now, if it is another
	build   bool   // it is missing or not as wanted
	reroute bool   // its routes are
	missing bool   // it is not there at all
	regroup bool   // it is to be put into its group, last
}

// diffLinks compares the wanted links with those of the kernel. A link with our
// name prefix that is in no group of ours is reported and left alone: it is not
// ours, and the rules let nothing through it. One of no VM for which stocked reports
// true is as it should be.
func diffLinks(layout ipam.Layout, want []plan.Link, have []host.Link, stocked func(host.Link) bool) linkDiff {
	var diff linkDiff
	found := make(map[string]host.Link, len(have))
	for _, link := range have {
		found[link.Name] = link
	}
	renamed := renamedLinks(layout, found)
	wanted := make(map[string]struct{}, len(want))
	for _, w := range want {
		wanted[w.Name] = struct{}{}
		h, ok := found[w.Name]
		if !ok {
			if h, ok = renamed[w.Name]; ok {
				wanted[h.Name] = struct{}{}
			}
		}
		switch {
		case !ok && w.Optional:
		case !ok:
			diff.find(w.Name, describe(w), nothing)
			diff.work = append(diff.work, linkWork{Link: w, build: true, missing: true, regroup: true})
		default:
			diff.compare(w, h)
		}
	}
	for _, h := range have {
		if _, ok := wanted[h.Name]; !ok && !stocked(h) {
			diff.unwanted(h)
		}
	}
	return diff
}

// renamedLinks returns the TAPs of ours that have a name that is not, by the name that
// goes with their address.
func renamedLinks(layout ipam.Layout, found map[string]host.Link) map[string]host.Link {
	renamed := map[string]host.Link{}
	for _, h := range found {
		if _, ok := ipam.ParseTAP(h.Name); ok || h.Kind != host.KindTAP || !h.Group.Ours() {
			continue
		}
		for _, address := range h.Addresses {
			if slot, ok := layout.SlotOf(address.Addr()); ok && layout.Gateway(slot) == address.Addr() {
				renamed[slot.TAP()] = h
			}
		}
	}
	return renamed
}

// unwanted sorts out a link that no VM has.
func (d *linkDiff) unwanted(h host.Link) {
	_, named := ipam.ParseTAP(h.Name)
	ours := h.Kind == host.KindTAP && (h.Group.Ours() || named && h.Group.Known())
	switch {
	case ours:
		d.find(h.Name, "no link: no VM has this slot", "link in group "+h.Group.String())
		d.orphans = append(d.orphans, h)
		if h.Group != model.GroupUnassigned && h.Group != model.GroupCondemned {
			d.shut = append(d.shut, h.Name)
		}
	case named:
		d.standing = append(d.standing, difference(h.Name, "no link of this name that is not ours", fmt.Sprintf("%s in group %s", h.Kind, h.Group)))
	}
}

// compare notes what of an existing link differs from the wanted one. One in a group
// that is not ours is ours by its Ethernet address, which no other has.
func (d *linkDiff) compare(w plan.Link, h host.Link) {
	if h.Kind != host.KindTAP || !h.Group.Ours() && h.MAC != w.MAC {
		d.standing = append(d.standing, difference(w.Name, describe(w), fmt.Sprintf("a %s in group %s, which is not ours", h.Kind, h.Group)))
		return
	}
	work := linkWork{Link: w, regroup: h.Group != w.Group}
	if h.Name != w.Name {
		work.called = h.Name
		d.find(w.Name, "name "+w.Name, "name "+h.Name)
	}
	if work.regroup {
		d.find(w.Name, "group "+w.Group.String(), "group "+h.Group.String())
		if h.Group != model.GroupUnassigned {
			d.shut = append(d.shut, h.Name)
		}
	}
	if !w.Optional {
		work.build = d.shape(w, h)
		work.reroute = len(h.Unrouted) > 0
	}
	if work.build || work.regroup || work.called != "" {
		d.work = append(d.work, work)
	}
}

// shape notes what of a link of ours differs beside its name and group, and reports
// whether anything does.
func (d *linkDiff) shape(w plan.Link, h host.Link) bool {
	before := len(d.findings)
	if h.MAC != w.MAC {
		d.find(w.Name, "address "+w.MAC.String(), "address "+h.MAC.String())
	}
	if h.MTU != w.MTU {
		d.find(w.Name, fmt.Sprintf("mtu %d", w.MTU), fmt.Sprintf("mtu %d", h.MTU))
	}
	if !h.Up {
		d.find(w.Name, "up", "down")
	}
	if len(h.Addresses) != 1 || h.Addresses[0] != w.Address {
		d.find(w.Name, "inet "+w.Address.String(), "inet "+join(h.Addresses))
	} else if len(h.Unrouted) > 0 {
		d.find(w.Name, "route to "+join(h.Unrouted), nothing)
	}
	for _, wrong := range h.Hardening.Wrong {
		d.find(w.Name, "the settings of a TAP", wrong)
	}
	return len(d.findings) > before
}

func (d *linkDiff) find(name, wanted, found string) {
	d.findings = append(d.findings, difference(name, wanted, found))
}

func difference(name, wanted, found string) firewall.Difference {
	return firewall.Difference{Object: linkObject + name, Wanted: wanted, Found: found}
}

func describe(w plan.Link) string {
	return fmt.Sprintf("tap in group %s with inet %s", w.Group, w.Address)
}

func join[T fmt.Stringer](items []T) string {
	if len(items) == 0 {
		return "none"
	}
	words := make([]string, len(items))
	for i, item := range items {
		words[i] = item.String()
	}
	return strings.Join(words, ", ")
}

// diffBridge compares the bridge of private networking, and finds those of ours
// that an earlier configuration had.
func diffBridge(want *plan.Bridge, have []host.Link) (findings []firewall.Difference, leftovers []string) {
	missing := want != nil
	for _, link := range have {
		ours := link.Kind == host.KindBridge && link.Alias == plan.BridgeAlias
		switch {
		case want != nil && link.Name == want.Name:
			missing = false
			if found := bridgeState(want, link, ours); found != "" {
				findings = append(findings, bridgeDifference(want, found))
			}
		case ours:
			leftovers = append(leftovers, link.Name)
			findings = append(findings, firewall.Difference{Object: "bridge " + link.Name, Wanted: "no such bridge", Found: "one that an earlier configuration had"})
		}
	}
	if missing {
		findings = append(findings, bridgeDifference(want, nothing))
	}
	return findings, leftovers
}

// bridgeState says what of an existing bridge is not as wanted, if anything.
func bridgeState(want *plan.Bridge, link host.Link, ours bool) string {
	switch {
	case !ours:
		return fmt.Sprintf("a %s that is not ours", link.Kind)
	case !link.Up:
		return "down"
	case len(link.Addresses) != 1 || link.Addresses[0] != want.Address:
		return "inet " + join(link.Addresses)
	case len(link.Unrouted) > 0:
		return "without a route to " + join(link.Unrouted)
	}
	return ""
}

func bridgeDifference(want *plan.Bridge, found string) firewall.Difference {
	return firewall.Difference{Object: "bridge " + want.Name, Wanted: "up with inet " + want.Address.String(), Found: found}
}

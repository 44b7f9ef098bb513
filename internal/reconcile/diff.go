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

// linkDiff is what has to be done to links to bring them to a plan.
type linkDiff struct {
	shut      []string    // in the wrong group, or nobody's: to be closed first
	work      []linkWork  // in the order of the plan
	orphans   []host.Link // ours, but of no VM
	leftovers []string    // bridges of an earlier configuration
	findings  []firewall.Difference
}

// linkWork is what is to be done to one link of a VM.
type linkWork struct {
	plan.Link
	build   bool // it is missing or not as wanted
	missing bool // it is not there at all
	regroup bool // it is to be put into its group, last
}

// diffLinks compares the wanted links with those of the kernel. A link with our
// name prefix that is in no group of ours is reported and left alone: it is not
// ours, and the rules let nothing through it.
func diffLinks(want []plan.Link, have []host.Link) linkDiff {
	var diff linkDiff
	found := make(map[string]host.Link, len(have))
	for _, link := range have {
		found[link.Name] = link
	}
	wanted := make(map[string]struct{}, len(want))
	for _, w := range want {
		wanted[w.Name] = struct{}{}
		h, ok := found[w.Name]
		switch {
		case !ok && w.Optional:
		case !ok:
			diff.find(w.Name, describe(w), "missing")
			diff.work = append(diff.work, linkWork{Link: w, build: true, missing: true, regroup: true})
		default:
			diff.compare(w, h)
		}
	}
	for _, h := range have {
		if _, ok := ipam.ParseTAP(h.Name); !ok {
			continue
		}
		if _, ok := wanted[h.Name]; ok {
			continue
		}
		if !h.Group.Ours() || h.Kind != host.KindTAP {
			diff.find(h.Name, "no link of this name that is not ours", fmt.Sprintf("%s in group %s", h.Kind, h.Group))
			continue
		}
		diff.find(h.Name, "no link: no VM has this slot", "link in group "+h.Group.String())
		diff.orphans = append(diff.orphans, h)
		diff.shut = append(diff.shut, h.Name)
	}
	return diff
}

// compare notes what of an existing link differs from the wanted one.
func (d *linkDiff) compare(w plan.Link, h host.Link) {
	if !h.Group.Ours() || h.Kind != host.KindTAP {
		d.find(w.Name, describe(w), fmt.Sprintf("a %s in group %s, which is not ours", h.Kind, h.Group))
		return
	}
	work := linkWork{Link: w, regroup: h.Group != w.Group}
	if work.regroup {
		d.find(w.Name, "group "+w.Group.String(), "group "+h.Group.String())
		if h.Group != model.GroupUnassigned {
			d.shut = append(d.shut, w.Name)
		}
	}
	if !w.Optional {
		work.build = d.shape(w, h)
	}
	if work.build || work.regroup {
		d.work = append(d.work, work)
	}
}

// shape notes what of a link of ours differs beside its group, and reports whether
// anything does.
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
	}
	for _, wrong := range h.Hardening.Wrong {
		d.find(w.Name, "the settings of a TAP", wrong)
	}
	return len(d.findings) > before
}

func (d *linkDiff) find(name, wanted, found string) {
	d.findings = append(d.findings, firewall.Difference{Object: "link " + name, Wanted: wanted, Found: found})
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
		findings = append(findings, bridgeDifference(want, "missing"))
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
	}
	return ""
}

func bridgeDifference(want *plan.Bridge, found string) firewall.Difference {
	return firewall.Difference{Object: "bridge " + want.Name, Wanted: "up with inet " + want.Address.String(), Found: found}
}

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
	shut      []string                    // in the wrong group, or nobody's: to be closed first
	build     []plan.Link                 // missing or not as wanted
	missing   []plan.Link                 // those of build that are not there at all
	regroup   map[model.Group][]plan.Link // to be put into this group, last
	orphans   []host.Link                 // ours, but of no VM
	leftovers []string                    // bridges of an earlier configuration
	findings  []firewall.Difference
}

// diffLinks compares the wanted links with those of the kernel. A link with our
// name prefix that is in no group of ours is reported and left alone: it is not
// ours, and the rules let nothing through it.
func diffLinks(want []plan.Link, have []host.Link) linkDiff {
	diff := linkDiff{regroup: map[model.Group][]plan.Link{}}
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
			diff.build = append(diff.build, w)
			diff.missing = append(diff.missing, w)
			diff.regroup[w.Group] = append(diff.regroup[w.Group], w)
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
	if h.Group != w.Group {
		d.find(w.Name, "group "+w.Group.String(), "group "+h.Group.String())
		d.regroup[w.Group] = append(d.regroup[w.Group], w)
		if h.Group != model.GroupUnassigned {
			d.shut = append(d.shut, w.Name)
		}
	}
	if w.Optional {
		return
	}
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
	if len(d.findings) > before {
		d.build = append(d.build, w)
	}
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

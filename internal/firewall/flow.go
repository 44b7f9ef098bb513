package firewall

import (
	"net/netip"
	"slices"
	"strings"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// Flow is a packet on its way through the host, and what the kernel finds out
// about it. From without a name is the host as sender, To without a name the host
// as receiver.
type Flow struct {
	Family   Family
	From, To Device
	Source   netip.Addr // as the sender wrote it
	Dest     netip.Addr
	Service  model.Service // destination port; zero: neither TCP nor UDP
	Is       []Packet      // the properties that hold
}

// Device is a network device.
type Device struct {
	Name  string
	Group model.Group
}

// Decision is what becomes of a flow.
type Decision struct {
	Verdict    Verdict // Accept or Drop
	Rule       Rule    // that decided; zero: none of ours did, so the rest of the host decides
	Masquerade bool    // the receiver sees the address of the device it leaves by
}

// Decide returns what becomes of a flow when these rules are asked in the order of
// its way. It is what a dataplane does in the kernel, without the kernel.
func (r Ruleset) Decide(f Flow) Decision {
	last := Decision{Verdict: Accept}
	for _, stage := range f.way() {
		if stage == NAT && f.is(untracked) {
			break
		}
		rule, ok := r.first(stage, &f)
		switch {
		case !ok:
			continue
		case rule.Verdict == Masquerade:
			last.Masquerade = true
			continue
		}
		last.Verdict, last.Rule = rule.Verdict, rule
		if rule.Verdict == Drop {
			return last
		}
	}
	return last
}

// way returns the stages that the packet comes by. Only the first packet of a
// connection is asked for NAT; the others are treated like it, and what is of none
// goes as it is.
func (f Flow) way() []Stage {
	var way []Stage
	switch {
	case f.From.Name == "":
		way = []Stage{Output}
	case f.To.Name == "":
		return []Stage{Ingress, Input}
	default:
		way = []Stage{Ingress, Forward}
	}
	if f.is(Established) || f.is(Related) || f.is(Invalid) {
		return way
	}
	return append(way, NAT)
}

// first returns the rule of the stage that decides about the flow.
func (r Ruleset) first(stage Stage, f *Flow) (rule Rule, ok bool) {
	for _, rule := range r.Stage(stage, f.Family) {
		if !rule.matches(*f) {
			continue
		}
		decided := true
		switch rule.Verdict {
		case AskGuest:
			rule, decided = r.first(Guest, f)
		case AskPrivate:
			rule, decided = r.first(Private, f)
		case Untrack:
			f.untrack()
			decided = false
		}
		if decided {
			return rule, true
		}
	}
	return Rule{}, false
}

// untracked is the property of a packet whose connection is not kept account of.
const untracked Packet = "untracked"

// untrack takes what is known of the packet's connection away.
func (f *Flow) untrack() {
	f.Is = slices.DeleteFunc(slices.Clone(f.Is), func(p Packet) bool { return p == Established || p == Related || p == Invalid })
	f.Is = append(f.Is, untracked)
}

func (r Rule) matches(f Flow) bool {
	return r.From.has(f.From) && r.To.has(f.To) &&
		(!r.Source.IsValid() || r.Source.Contains(f.Source)) &&
		(!r.Dest.IsValid() || r.Dest.Contains(f.Dest)) &&
		(r.Packet == "" || f.is(r.Packet)) &&
		(r.Service == model.Service{} || r.Service == f.Service)
}

func (f Flow) is(p Packet) bool {
	switch p {
	case RelatedToGateway:
		return f.is(Related) && f.is(ToGateway)
	case NotGuest:
		return f.Source.Is4() && !ipam.IsGuest(f.Source)
	case ToGuest:
		return f.Dest.Is4() && ipam.IsGuest(f.Dest)
	}
	return slices.Contains(f.Is, p)
}

// has reports whether the device is in the set. The zero set has every device, and
// is asked of packets without one, too.
func (d Devices) has(device Device) bool {
	named := device.Name != ""
	switch {
	case d.Group != 0:
		return named && device.Group == d.Group
	case d.VMs:
		return named && device.Group.Ours()
	case d.Stray:
		return named && strings.HasPrefix(device.Name, StrayPattern) && !device.Group.Ours()
	case d.Name != "":
		return device.Name == d.Name
	}
	return true
}

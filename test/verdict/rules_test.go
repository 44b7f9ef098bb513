package verdict_test

import (
	"fmt"
	"net/netip"
	"slices"

	"zwrm/internal/firewall"
	"zwrm/internal/model"
)

// policy makes the rules of a random configuration.
func (r *random) policy() firewall.Ruleset {
	p := firewall.Policy{Subnet: netip.MustParsePrefix("172.16.0.0/16"), External: "eth0", Private: r.chance(60)}
	if r.chance(50) {
		p.Apps = append(p.Apps, firewall.App{Name: "a", Group: appA})
	}
	if r.chance(30) {
		p.Apps = append(p.Apps, firewall.App{Name: "b", Group: appB})
	}
	for _, deny := range []string{"169.254.0.0/16", "203.0.113.0/24", "192.0.2.2/32"} {
		if r.chance(50) {
			p.EgressDeny = append(p.EgressDeny, netip.MustParsePrefix(deny))
		}
	}
	for _, service := range services() {
		if r.chance(40) {
			p.HostAccess = append(p.HostAccess, service)
		}
	}
	return firewall.Build(p)
}

// rules makes any rules that both dataplanes have words for.
func (r *random) rules() firewall.Ruleset {
	stages := []firewall.Stage{firewall.Ingress, firewall.Forward, firewall.Private, firewall.Input, firewall.Output, firewall.NAT}
	var rules []firewall.Rule
	for _, stage := range stages {
		for range 1 + r.IntN(5) {
			rules = append(rules, r.rule(stage))
		}
	}
	if !slices.ContainsFunc(rules, func(rule firewall.Rule) bool { return rule.Stage == firewall.Private && rule.Family&firewall.IPv4 != 0 }) {
		rules = slices.DeleteFunc(rules, func(rule firewall.Rule) bool {
			return rule.Stage == firewall.Private || rule.Verdict == firewall.AskPrivate
		})
	}
	for i := range rules {
		rules[i].Reason = firewall.Reason(fmt.Sprintf("r%d", i))
	}
	return firewall.Ruleset{Rules: rules}
}

func (r *random) rule(stage firewall.Stage) firewall.Rule {
	rule := firewall.Rule{Stage: stage, Family: pick(r, firewall.IPv4, firewall.IPv4, firewall.IPv4, firewall.IPv4, firewall.Both, firewall.IPv6)}
	private := stage == firewall.Private
	if private || stage == firewall.NAT {
		rule.Family = firewall.IPv4
	}
	if slices.Contains([]firewall.Stage{firewall.Ingress, firewall.Forward, firewall.Private, firewall.Input}, stage) {
		rule.From = r.devices()
	}
	if slices.Contains([]firewall.Stage{firewall.Forward, firewall.Private, firewall.Output, firewall.NAT}, stage) {
		rule.To = r.devices()
	}
	if rule.Family == firewall.IPv4 {
		prefixes := []string{"172.16.0.0/16", "172.16.0.0/29", "192.0.2.0/24", "198.51.100.2/32", "0.0.0.0/0", "169.254.0.0/16"}
		if r.chance(25) {
			rule.Source = netip.MustParsePrefix(pick(r, prefixes...))
		}
		if r.chance(25) {
			rule.Dest = netip.MustParsePrefix(pick(r, prefixes...))
		}
		rule.Packet = r.property(stage)
	}
	if rule.Packet == firewall.NotGuest {
		rule.Source = netip.Prefix{} // iptables compares the source once
	}
	if rule.Packet != firewall.EchoGateway && r.chance(20) {
		rule.Service = pick(r, services()...)
	}
	rule.Verdict = pick(r, firewall.Accept, firewall.Drop)
	switch {
	case stage == firewall.NAT:
		rule.Verdict = pick(r, firewall.Masquerade, firewall.Accept)
	case stage == firewall.Forward && rule.Family == firewall.IPv4 && r.chance(30):
		rule.Verdict = firewall.AskPrivate
	}
	return rule
}

func (r *random) devices() firewall.Devices {
	return pick(r, firewall.Devices{}, firewall.Devices{}, firewall.Devices{VMs: true}, firewall.Devices{Stray: true},
		firewall.Devices{Group: appA}, firewall.Devices{Group: appB}, firewall.Devices{Group: model.GroupUnassigned},
		firewall.Devices{Name: "eth0"}, firewall.Devices{Name: "lan0"}, firewall.Devices{Name: "zvm1"})
}

// property returns one that the kernel can tell at the stage.
func (r *random) property(stage firewall.Stage) firewall.Packet {
	properties := map[firewall.Stage][]firewall.Packet{
		firewall.Ingress: {firewall.Misrouted, firewall.NotGuest, firewall.ForeignMAC, firewall.Options, firewall.NotUnicast, firewall.EchoGateway, firewall.ToGateway},
		firewall.Forward: {firewall.Established, firewall.Related, firewall.Invalid, firewall.NotGuest, firewall.Options},
		firewall.Private: {firewall.Established, firewall.Related, firewall.NotGuest},
		firewall.Input:   {firewall.Established, firewall.Related, firewall.Invalid, firewall.RelatedToGateway, firewall.EchoGateway, firewall.ToGateway, firewall.NotUnicast, firewall.Options},
		firewall.Output:  {firewall.Established},
	}[stage]
	if len(properties) == 0 || r.chance(60) {
		return ""
	}
	return pick(r, properties...)
}

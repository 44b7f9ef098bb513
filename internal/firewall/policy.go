package firewall

import (
	"net/netip"

	"zwrm/internal/model"
)

// Policy is what the rules are made from. It does not know VMs, since no rule
// is made for one.
type Policy struct {
	Subnet     netip.Prefix
	External   string // interface to the internet
	Private    bool   // VMs of one app reach each other
	EgressDeny []netip.Prefix
	HostAccess []model.Service
	Apps       []App // those with two VMs or more, ordered by group
}

// App is an app whose VMs reach each other.
type App struct {
	Name  model.Name
	Group model.Group
}

// Build returns the rules of the policy: the firewall table of the design, line
// by line. The number of rules depends on the configuration and the number of
// apps, never on the number of VMs.
func Build(p Policy) Ruleset {
	var rules []Rule
	for _, part := range [][]Rule{ingress(), guest(p), forward(p), private(p), input(p), output(), nat(p)} {
		rules = append(rules, part...)
	}
	return Ruleset{Rules: rules}
}

// AppRule returns the rule that lets the app's VMs reach each other. It goes
// before the last rule of the stage Private.
func AppRule(a App) Rule {
	return Rule{Stage: Private, Family: IPv4, From: Devices{Group: a.Group}, To: Devices{Group: a.Group},
		Verdict: Accept, Reason: SameApp, App: a.Name}
}

// ingress closes TAPs that belong to no app.
func ingress() []Rule {
	vms := Devices{VMs: true}
	return []Rule{
		{Stage: Ingress, Family: IPv4, From: vms, Verdict: AskGuest, Reason: FromVM},
		{Stage: Ingress, Family: Both, From: Devices{Group: model.GroupUnassigned}, Verdict: Drop, Reason: Unassigned},
		{Stage: Ingress, Family: Both, From: Devices{Stray: true}, Verdict: Drop, Reason: StrayTAP},
		{Stage: Ingress, Family: IPv6, From: vms, Verdict: Drop, Reason: NoIPv6},
	}
}

// guest drops what a guest may not say: any source but its own address. The two tests for it need no address of
// any guest: the route back must lead to the TAP the packet came by, which
// leaves the four addresses of its /30, and only the third of them is a guest's. A
// guest's Ethernet address follows from its IPv4 address.
//
// Options of the header would route a packet past the rules that look at where it
// goes. What is for more than one receiver is of no use between two of them.
//
// What goes from VM to VM needs no connection: whoever may speak to another may be
// answered, and who may follows from the two devices.
func guest(p Policy) []Rule {
	groups := netip.PrefixFrom(netip.AddrFrom4([4]byte{224}), 4) // RFC 5771
	return []Rule{
		{Stage: Guest, Family: IPv4, Packet: NotGuest, Verdict: Drop, Reason: Spoofed},
		{Stage: Guest, Family: IPv4, Packet: Misrouted, Verdict: Drop, Reason: Spoofed},
		{Stage: Guest, Family: IPv4, Packet: ForeignMAC, Verdict: Drop, Reason: SpoofedMAC},
		{Stage: Guest, Family: IPv4, Packet: Options, Verdict: Drop, Reason: WithOptions},
		{Stage: Guest, Family: IPv4, Packet: NotUnicast, Verdict: Drop, Reason: Multicast},
		{Stage: Guest, Family: IPv4, Dest: groups, Verdict: Drop, Reason: Multicast},
		{Stage: Guest, Family: IPv4, Dest: p.Subnet, Packet: ToGuest, Verdict: Untrack, Reason: Peers},
	}
}

// forward asks who speaks to whom before it lets related packets through: whoever
// knows the ports of a connection can make an ICMP error about it, and so might a
// VM about the connections of another app's. A guest that sends an error about its
// own goes by the rules for what is new.
func forward(p Policy) []Rule {
	vms := Devices{VMs: true}
	rules := append(closed(Forward),
		Rule{Stage: Forward, Family: IPv4, From: vms, Packet: Established, Verdict: Accept, Reason: Known},
		Rule{Stage: Forward, Family: IPv4, To: vms, Packet: Established, Verdict: Accept, Reason: Known})
	if p.Private {
		rules = append(rules, Rule{Stage: Forward, Family: IPv4, From: vms, To: vms, Verdict: AskPrivate, Reason: Peers})
	} else {
		rules = append(rules, Rule{Stage: Forward, Family: IPv4, From: vms, To: vms, Verdict: Drop, Reason: NoPrivate})
	}
	out := Devices{Name: p.External}
	rules = append(rules,
		Rule{Stage: Forward, Family: IPv4, From: out, To: vms, Packet: Related, Verdict: Accept, Reason: Known},
		// An address of the subnet that no TAP has would leave by the default route.
		Rule{Stage: Forward, Family: IPv4, From: vms, Dest: p.Subnet, Verdict: Drop, Reason: Unowned},
		// Somebody outside would make a connection known with it, which the next VM of
		// this address would take part in: untranslated, since it did not begin it.
		Rule{Stage: Forward, Family: IPv4, From: out, To: out, Dest: p.Subnet, Verdict: Drop, Reason: Unowned})
	for _, denied := range p.EgressDeny {
		rules = append(rules, Rule{Stage: Forward, Family: IPv4, From: vms, Dest: denied, Verdict: Drop, Reason: EgressDenied})
	}
	return append(rules,
		// It would leave with the guest's own address, since what is not tracked is not masqueraded.
		Rule{Stage: Forward, Family: IPv4, From: vms, To: out, Packet: Invalid, Verdict: Drop, Reason: NotTracked},
		Rule{Stage: Forward, Family: IPv4, From: vms, To: out, Verdict: Accept, Reason: Internet},
		Rule{Stage: Forward, Family: IPv4, From: vms, Verdict: Drop, Reason: OtherDevice},
		Rule{Stage: Forward, Family: IPv4, To: vms, Verdict: Drop, Reason: Unpublished})
}

func private(p Policy) []Rule {
	if !p.Private {
		return nil
	}
	var rules []Rule
	for _, app := range p.Apps {
		rules = append(rules, AppRule(app))
	}
	return append(rules, Rule{Stage: Private, Family: IPv4, Verdict: Drop, Reason: OtherApp})
}

// input lets a guest send errors about connections with its gateway's address
// only: those about others of the host could be made up, and would change the
// host's routes to third parties.
func input(p Policy) []Rule {
	vms := Devices{VMs: true}
	rules := []Rule{
		{Stage: Input, Family: IPv4, From: vms, Packet: Established, Verdict: Accept, Reason: Known},
		{Stage: Input, Family: IPv4, From: vms, Packet: RelatedToGateway, Verdict: Accept, Reason: Known},
		// A service would drop a wrong checksum by itself, and nobody would know.
		{Stage: Input, Family: IPv4, From: vms, Packet: Invalid, Verdict: Drop, Reason: NotTracked},
		{Stage: Input, Family: IPv4, From: vms, Packet: EchoGateway, Verdict: Accept, Reason: Ping},
	}
	for _, service := range p.HostAccess {
		rules = append(rules, Rule{Stage: Input, Family: IPv4, From: vms, Packet: ToGateway, Service: service,
			Verdict: Accept, Reason: HostAccess})
	}
	return append(rules, Rule{Stage: Input, Family: IPv4, From: vms, Verdict: Drop, Reason: HostClosed})
}

func output() []Rule {
	vms := Devices{VMs: true}
	return append(closed(Output),
		Rule{Stage: Output, Family: IPv4, To: vms, Verdict: Accept, Reason: FromHost})
}

// closed drops what is sent to TAPs that belong to no app, and all IPv6.
func closed(stage Stage) []Rule {
	return []Rule{
		{Stage: stage, Family: Both, To: Devices{Group: model.GroupUnassigned}, Verdict: Drop, Reason: Unassigned},
		{Stage: stage, Family: Both, To: Devices{Stray: true}, Verdict: Drop, Reason: StrayTAP},
		{Stage: stage, Family: IPv6, To: Devices{VMs: true}, Verdict: Drop, Reason: NoIPv6},
	}
}

func nat(p Policy) []Rule {
	return []Rule{{Stage: NAT, Family: IPv4, Source: p.Subnet, To: Devices{Name: p.External},
		Verdict: Masquerade, Reason: Internet}}
}

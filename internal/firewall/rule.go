package firewall

import (
	"net/netip"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// Stage is the point on a packet's way at which a rule is asked.
type Stage string

// The stages. Within a stage the first rule that matches decides; a packet that
// none matches is the rest of the host's business.
const (
	Ingress Stage = "ingress" // received, before connection tracking
	Guest   Stage = "guest"   // asked by Ingress for what VMs send
	Forward Stage = "forward" // routed from one device to another
	Private Stage = "private" // asked by Forward for VM to VM
	Input   Stage = "input"   // for the host itself
	Output  Stage = "output"  // sent by the host itself
	NAT     Stage = "nat"     // leaving, new connections only
)

// Verdict is what becomes of a packet that a rule matches.
type Verdict string

// The verdicts.
const (
	Accept     Verdict = "accept"
	Drop       Verdict = "drop"
	AskGuest   Verdict = "ask-guest"   // go on in the stage Guest
	AskPrivate Verdict = "ask-private" // go on in the stage Private
	Untrack    Verdict = "untrack"     // go on; connections are not kept account of
	Masquerade Verdict = "masquerade"  // the source becomes the address of the device it leaves by
)

// Family is a set of IP versions.
type Family uint8

// The families.
const (
	IPv4 Family = 1 << iota
	IPv6
	Both = IPv4 | IPv6
)

// Rule is one line of a stage. A packet matches when every field that is not
// zero does.
type Rule struct {
	Stage   Stage
	Family  Family
	From    Devices      // device it was received by
	To      Devices      // device it leaves by
	Source  netip.Prefix // source address
	Dest    netip.Prefix // destination address
	Packet  Packet
	Service model.Service // destination port
	Verdict Verdict
	Reason  Reason
	App     model.Name // of an app's own rule
}

// Devices is a set of network devices. At most one field is set.
type Devices struct {
	Group model.Group // devices of exactly this group
	VMs   bool        // every TAP of ZWRM, unassigned ones too
	Stray bool        // devices named like a TAP of ours, in no group of ours
	Name  string      // one device
}

// Packet is a property of a packet that is more than a comparison of a field.
type Packet string

// The properties.
const (
	Established      Packet = "established"        // of a connection that both sides have used
	Related          Packet = "related"            // brought about by a known connection, such as an ICMP error
	RelatedToGateway Packet = "related-to-gateway" // related, and to an address of the device it came by
	Invalid          Packet = "invalid"            // connection tracking cannot tell whose it is: its checksum is wrong, or its place in a connection
	Misrouted        Packet = "misrouted"          // the route back to its source leaves by another device
	NotGuest         Packet = "not-guest"          // source is not the third address of a /30
	ToGuest          Packet = "to-guest"           // destination is the third address of a /30
	ForeignMAC       Packet = "foreign-mac"        // its Ethernet source is not 02:5a and the IPv4 source
	Options          Packet = "ip-options"         // its IPv4 header has options
	NotUnicast       Packet = "not-unicast"        // its Ethernet destination is a group or everybody
	EchoGateway      Packet = "echo"               // ICMP echo request to an address of the device it came by
	ToGateway        Packet = "to-gateway"         // to an address of the device it came by
)

// Reason says in one word why a rule is there; people read it in rule comments,
// and what is dropped is counted by it.
type Reason string

// The reasons.
const (
	Unassigned   Reason = "unassigned"
	StrayTAP     Reason = "stray-tap"
	Spoofed      Reason = "spoofed"
	SpoofedMAC   Reason = "spoofed-mac"
	WithOptions  Reason = "ip-options"
	Multicast    Reason = "multicast"
	NoIPv6       Reason = "no-ipv6"
	Known        Reason = "established"
	FromVM       Reason = "from-vm"
	Peers        Reason = "vm-to-vm"
	SameApp      Reason = "app"
	OtherApp     Reason = "other-app"
	NoPrivate    Reason = "private-networking-off"
	Unowned      Reason = "no-such-vm"
	EgressDenied Reason = "egress-denied"
	NotTracked   Reason = "invalid"
	Internet     Reason = "internet"
	OtherDevice  Reason = "other-interface"
	Unpublished  Reason = "not-published"
	Ping         Reason = "ping-gateway"
	HostAccess   Reason = "host-access"
	HostClosed   Reason = "host"
	FromHost     Reason = "from-host"
)

// Ruleset is every rule, in the order in which they are asked.
type Ruleset struct {
	Rules []Rule
}

// Stage returns the rules of one stage and family, in order.
func (r Ruleset) Stage(stage Stage, family Family) []Rule {
	var rules []Rule
	for _, rule := range r.Rules {
		if rule.Stage == stage && rule.Family&family != 0 {
			rules = append(rules, rule)
		}
	}
	return rules
}

// GuestHost is the part of a guest's address within its /30, and GuestHostMask
// the mask that selects it: every guest is the third address (binary 10).
func GuestHost() (host, mask netip.Addr) {
	return netip.AddrFrom4([4]byte{0, 0, 0, 2}), netip.AddrFrom4([4]byte{0, 0, 0, 3})
}

// StrayPattern is the prefix of names that Devices.Stray means.
const StrayPattern = ipam.TAPPrefix

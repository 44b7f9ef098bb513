package iptables

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"zwrm/internal/firewall"
	"zwrm/internal/model"
)

// render returns the tables that hold the rules of one family, each in all three
// cases: a table of this family that should hold nothing has no chains.
func render(rules firewall.Ruleset, family firewall.Family) ([]table, error) {
	var out []table
	for _, name := range tables() {
		t := table{name: name}
		for _, p := range places() {
			stage := rules.Stage(p.stage, family)
			if p.table != name || len(stage) == 0 {
				continue
			}
			c := chain{name: p.chain, hook: p.hook}
			for _, r := range stage {
				if r.Verdict == firewall.Untrack {
					// A new packet may be compared with each app in turn: it must not be all of them.
					continue
				}
				spec, err := renderRule(r, family)
				if err != nil {
					return nil, fmt.Errorf("render rule %q: %w", r, err)
				}
				c.rules = append(c.rules, rule{spec: spec, app: r.App != ""})
			}
			t.chains = append(t.chains, c)
		}
		out = append(out, t)
	}
	return out, nil
}

// renderRule writes a rule just as iptables-save prints it, so that what is
// wanted and what is found compare as text. iptables-save has its own order: the
// fields of the packet's header, the matches as they were given, the target.
func renderRule(r firewall.Rule, family firewall.Family) (string, error) {
	source, err := addresses(r, family)
	if err != nil {
		return "", err
	}
	target, err := target(r.Verdict)
	if err != nil {
		return "", err
	}
	matches, err := packet(r)
	if err != nil {
		return "", err
	}
	words := []string{source, device("-i", r.From), device("-o", r.To), protocol(r), groups(r), matches, comment(reason(r)), "-j", target}
	return strings.Join(nonEmpty(words), " "), nil
}

func nonEmpty(words []string) []string {
	var out []string
	for _, w := range words {
		if w != "" {
			out = append(out, w)
		}
	}
	return out
}

func addresses(r firewall.Rule, family firewall.Family) (string, error) {
	var words []string
	if r.Packet == firewall.NotGuest {
		if r.Source.IsValid() {
			return "", errors.New("iptables compares the source address once, and the rule asks for it twice")
		}
		host, mask := firewall.GuestHost()
		words = append(words, "! -s "+host.String()+"/"+mask.String())
	}
	for _, a := range []struct {
		option string
		prefix netip.Prefix
	}{{"-s", r.Source}, {"-d", r.Dest}} {
		if !a.prefix.IsValid() {
			continue
		}
		if a.prefix.Addr().Is4() != (family == firewall.IPv4) {
			return "", fmt.Errorf("address %q is of the other IP version", a.prefix)
		}
		if a.prefix.Bits() > 0 { // iptables drops what every address matches
			words = append(words, a.option+" "+a.prefix.Masked().String())
		}
	}
	return strings.Join(words, " "), nil
}

func device(option string, d firewall.Devices) string {
	switch {
	case d.Name != "":
		return option + " " + d.Name
	case d.Stray:
		return option + " " + firewall.StrayPattern + "+"
	}
	return ""
}

func protocol(r firewall.Rule) string {
	switch {
	case r.Packet == firewall.EchoGateway:
		return "-p icmp"
	case r.Service != model.Service{}:
		return "-p " + string(r.Service.Protocol)
	}
	return ""
}

// groups writes both devices into one match: iptables would take two, but the
// kernel would be called twice.
func groups(r firewall.Rule) string {
	options := nonEmpty([]string{group("--src-group", r.From), group("--dst-group", r.To)})
	if len(options) == 0 {
		return ""
	}
	return "-m devgroup " + strings.Join(options, " ")
}

func group(option string, d firewall.Devices) string {
	ours := model.GroupUnassigned.String() + "/" + model.GroupMask.String()
	switch {
	case d.Group != 0:
		return option + " " + d.Group.String()
	case d.VMs:
		return option + " " + ours
	case d.Stray:
		return "! " + option + " " + ours
	}
	return ""
}

func packet(r firewall.Rule) (string, error) {
	// The address of the device that the packet came by: without the limit, a
	// guest would reach the gateway addresses of all others.
	const toGateway = "-m addrtype --dst-type LOCAL --limit-iface-in"
	var port string
	if r.Service != (model.Service{}) {
		port = fmt.Sprintf("-m %s --dport %d", r.Service.Protocol, r.Service.Port)
	}
	var match string
	switch r.Packet {
	case "", firewall.NotGuest: // an address, written with the others
	case firewall.Established:
		match = "-m conntrack --ctstate ESTABLISHED"
	case firewall.Related:
		match = "-m conntrack --ctstate RELATED"
	case firewall.Invalid:
		match = "-m conntrack --ctstate INVALID"
	case firewall.RelatedToGateway:
		match = "-m conntrack --ctstate RELATED " + toGateway
	case firewall.Misrouted:
		match = "-m rpfilter --invert"
	case firewall.ForeignMAC:
		var err error
		if match, err = foreignMAC(); err != nil {
			return "", err
		}
	case firewall.Options:
		match = `-m u32 ! --u32 "0x0>>0x18&0xf=0x5"` // RFC 791: a header without options has 5 words
	case firewall.NotUnicast:
		match = "-m pkttype ! --pkt-type unicast"
	case firewall.EchoGateway:
		match = "-m icmp --icmp-type 8 " + toGateway // RFC 792: 8 is echo request
	case firewall.ToGateway:
		match = toGateway
	default:
		return "", fmt.Errorf("iptables has no match for %q", r.Packet)
	}
	return strings.Join(nonEmpty([]string{port, match}), " "), nil
}

// foreignMAC is the program in the form of the match "bpf": the number of its
// instructions, and of each its code, how far to jump if so and if not, and a value.
func foreignMAC() (string, error) {
	program, err := firewall.ForeignMACProgram()
	if err != nil {
		return "", fmt.Errorf("make the program: %w", err)
	}
	words := []string{strconv.Itoa(len(program))}
	for _, i := range program {
		words = append(words, fmt.Sprintf("%d %d %d %d", i.Op, i.Jt, i.Jf, i.K))
	}
	return `-m bpf --bytecode "` + strings.Join(words, ",") + `"`, nil
}

func target(v firewall.Verdict) (string, error) {
	switch v {
	case firewall.Accept:
		return "ACCEPT", nil
	case firewall.Drop:
		return "DROP", nil
	case firewall.AskGuest:
		return string(GuestChain), nil
	case firewall.AskPrivate:
		return string(PrivateChain), nil
	case firewall.Masquerade:
		return "MASQUERADE", nil
	}
	return "", fmt.Errorf("iptables has no target for %q", v)
}

func reason(r firewall.Rule) string {
	if r.App != "" {
		return string(r.Reason) + " " + string(r.App)
	}
	return string(r.Reason)
}

package firewall

import (
	"fmt"
	"strings"

	"zwrm/internal/model"
)

// String returns the rule on one line, as in
// "forward ipv4 from VMs to VMs: ask-private (vm-to-vm)".
func (r Rule) String() string {
	words := []string{string(r.Stage), r.Family.String()}
	say := func(word string, what fmt.Stringer, said bool) {
		if said {
			words = append(words, word, what.String())
		}
	}
	say("from", r.From, r.From != Devices{})
	say("to", r.To, r.To != Devices{})
	say("source", r.Source, r.Source.IsValid())
	say("destination", r.Dest, r.Dest.IsValid())
	say("packet", r.Packet, r.Packet != "")
	say("port", r.Service, r.Service != model.Service{})
	reason := string(r.Reason)
	if r.App != "" {
		reason += " " + string(r.App)
	}
	return fmt.Sprintf("%s: %s (%s)", strings.Join(words, " "), r.Verdict, reason)
}

// String returns the family, as in "ipv4" and "ipv4+ipv6".
func (f Family) String() string {
	var names []string
	if f&IPv4 != 0 {
		names = append(names, "ipv4")
	}
	if f&IPv6 != 0 {
		names = append(names, "ipv6")
	}
	return strings.Join(names, "+")
}

// String returns what the set holds, as in "group 0x5a000001", "VMs" and "eth0".
func (d Devices) String() string {
	switch {
	case d.Group != 0:
		return "group " + d.Group.String()
	case d.VMs:
		return "VMs"
	case d.Stray:
		return StrayPattern + "* without group"
	}
	return d.Name
}

// String returns the property's name.
func (p Packet) String() string { return string(p) }

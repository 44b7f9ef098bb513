package iptables

import (
	"net/netip"
	"strings"
	"testing"

	"zwrm/internal/firewall"
	"zwrm/internal/model"
)

func TestGolden(t *testing.T) {
	for _, c := range goldenCases() {
		t.Run(c.name, func(t *testing.T) {
			k := newFake()
			d := k.open(t)
			if err := d.Apply(t.Context(), c.rules); err != nil {
				t.Fatal(err)
			}
			got, err := d.Dump(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			compareGolden(t, c.name, got)
		})
	}
}

// renderCase is a rule that Build does not make in this form but may one day.
type renderCase struct {
	name   string
	rule   firewall.Rule
	family firewall.Family
	want   string // what iptables-save prints, without the comment
}

func renderCases() []renderCase {
	accept := firewall.Rule{Verdict: firewall.Accept, Reason: "x"}
	with := func(change func(*firewall.Rule)) firewall.Rule {
		r := accept
		change(&r)
		return r
	}
	prefix := netip.MustParsePrefix
	return []renderCase{
		{"no field", accept, firewall.IPv4, "COMMENT -j ACCEPT"},
		{"one address", with(func(r *firewall.Rule) { r.Dest = prefix("192.0.2.7/32") }), firewall.IPv4, "-d 192.0.2.7/32 COMMENT -j ACCEPT"},
		{"every address", with(func(r *firewall.Rule) { r.Dest = prefix("0.0.0.0/0") }), firewall.IPv4, "COMMENT -j ACCEPT"},
		{"host bits", with(func(r *firewall.Rule) { r.Dest = prefix("10.1.2.3/8") }), firewall.IPv4, "-d 10.0.0.0/8 COMMENT -j ACCEPT"},
		{"both addresses", with(func(r *firewall.Rule) { r.Source, r.Dest = prefix("10.0.0.0/8"), prefix("192.0.2.0/24") }), firewall.IPv4,
			"-s 10.0.0.0/8 -d 192.0.2.0/24 COMMENT -j ACCEPT"},
		{"one IPv6 address", with(func(r *firewall.Rule) { r.Source = prefix("fd00:0:0::1/128") }), firewall.IPv6, "-s fd00::1/128 COMMENT -j ACCEPT"},
		{"IPv6 network", with(func(r *firewall.Rule) { r.Dest = prefix("2001:db8::/32") }), firewall.IPv6, "-d 2001:db8::/32 COMMENT -j ACCEPT"},
		{"every IPv6 address", with(func(r *firewall.Rule) { r.Dest = prefix("::/0") }), firewall.IPv6, "COMMENT -j ACCEPT"},
		{"stray to group", with(func(r *firewall.Rule) {
			r.From, r.To = firewall.Devices{Stray: true}, firewall.Devices{Group: model.AppID(9).Group()}
		}), firewall.IPv4, "-i zvm+ -m devgroup ! --src-group 0x5a000000/0xff000000 --dst-group 0x5a000009 COMMENT -j ACCEPT"},
		{"group to stray", with(func(r *firewall.Rule) {
			r.From, r.To = firewall.Devices{VMs: true}, firewall.Devices{Stray: true}
		}), firewall.IPv4, "-o zvm+ -m devgroup --src-group 0x5a000000/0xff000000 ! --dst-group 0x5a000000/0xff000000 COMMENT -j ACCEPT"},
		{"everything", with(func(r *firewall.Rule) {
			r.From, r.To = firewall.Devices{Name: "eth0"}, firewall.Devices{Name: "eth1"}
			r.Packet, r.Dest = firewall.NotGuest, prefix("192.0.2.0/24")
			r.Service = model.Service{Protocol: model.TCP, Port: 80}
		}), firewall.IPv4, "! -s 0.0.0.2/0.0.0.3 -d 192.0.2.0/24 -i eth0 -o eth1 -p tcp -m tcp --dport 80 COMMENT -j ACCEPT"},
	}
}

func TestRenderRule(t *testing.T) {
	for _, c := range renderCases() {
		t.Run(c.name, func(t *testing.T) {
			got, err := renderRule(c.rule, c.family)
			if err != nil {
				t.Fatal(err)
			}
			if want := strings.Replace(c.want, "COMMENT", `-m comment --comment "zwrm: x"`, 1); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestRenderRefuses(t *testing.T) {
	tests := []struct {
		name   string
		rule   firewall.Rule
		family firewall.Family
		want   string
	}{
		{"IPv6 address in IPv4", firewall.Rule{Dest: netip.MustParsePrefix("fd00::/8"), Verdict: firewall.Drop}, firewall.IPv4, "other IP version"},
		{"IPv4 address in IPv6", firewall.Rule{Source: netip.MustParsePrefix("10.0.0.0/8"), Verdict: firewall.Drop}, firewall.IPv6, "other IP version"},
		{"source twice", firewall.Rule{Source: netip.MustParsePrefix("10.0.0.0/8"), Packet: firewall.NotGuest, Verdict: firewall.Drop}, firewall.IPv4, "twice"},
		{"unknown packet", firewall.Rule{Packet: "large", Verdict: firewall.Drop}, firewall.IPv4, `no match for "large"`},
		{"unknown verdict", firewall.Rule{Verdict: "log"}, firewall.IPv4, `no target for "log"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.rule.Stage, test.rule.Family = firewall.Forward, test.family
			_, err := render(firewall.Ruleset{Rules: []firewall.Rule{test.rule}}, test.family)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.rule.String()) {
				t.Errorf("error %v, want the rule and %q", err, test.want)
			}
		})
	}
}

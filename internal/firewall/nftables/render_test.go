package nftables

import (
	"net/netip"
	"strings"
	"testing"

	"zwrm/internal/firewall"
	"zwrm/internal/model"
)

// TestRenderRefuses: what has no rendering is an error, never a rule that says
// something else.
func TestRenderRefuses(t *testing.T) {
	prefix6 := netip.MustParsePrefix("2001:db8::/32")
	tests := []struct {
		name string
		rule firewall.Rule
		want string // end of the error
	}{
		{"address of IPv6", firewall.Rule{Family: firewall.IPv6, Source: prefix6, Verdict: firewall.Drop}, `address "2001:db8::/32" is not IPv4`},
		{"address of IPv4 for both", firewall.Rule{Family: firewall.Both, Dest: netip.MustParsePrefix("10.0.0.0/8"), Verdict: firewall.Drop},
			"it compares what only IPv4 has, and is for ipv4+ipv6"},
		{"guests of IPv6", firewall.Rule{Family: firewall.IPv6, Packet: firewall.NotGuest, Verdict: firewall.Drop}, "it compares what only IPv4 has, and is for ipv6"},
		{"unknown packet", firewall.Rule{Family: firewall.IPv4, Packet: "odd", Verdict: firewall.Drop}, `nftables has no match for "odd"`},
		{"unknown protocol", firewall.Rule{Family: firewall.IPv4, Service: model.Service{Protocol: "sctp", Port: 1}, Verdict: firewall.Drop},
			`nftables has no match for protocol "sctp"`},
		{"unknown verdict", firewall.Rule{Family: firewall.IPv4, Verdict: "reject"}, `nftables has no verdict for "reject"`},
		{"too long", firewall.Rule{Family: firewall.IPv4, Verdict: firewall.Drop, Reason: firewall.Reason(strings.Repeat("x", 300))},
			"the text and the comment of the rule take 352 bytes, and the kernel keeps 256"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.rule.Stage = firewall.Forward
			_, err := render(firewall.Ruleset{Rules: []firewall.Rule{test.rule}}, abilities{matchMAC: true})
			if err == nil || !strings.HasPrefix(err.Error(), "render rule ") || !strings.HasSuffix(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
	_, err := render(firewall.Ruleset{Rules: []firewall.Rule{firewall.AppRule(app("web", 1))}}, abilities{matchMAC: true})
	if want := "there are rules of apps, and no other rule in their stage"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

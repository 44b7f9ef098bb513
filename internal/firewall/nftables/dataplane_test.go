package nftables

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"zwrm/internal/firewall"
	"zwrm/internal/model"
)

type goldenCase struct {
	name  string
	rules firewall.Ruleset
}

func goldenCases() []goldenCase {
	return []goldenCase{
		{"private_off", policy(func(p *firewall.Policy) { p.Private = false })},
		{"private_on_no_apps", policy(func(p *firewall.Policy) { p.Apps = nil })},
		{"private_on_two_apps", policy(nil)},
		{"host_access", policy(func(p *firewall.Policy) {
			p.HostAccess = []model.Service{{Protocol: model.UDP, Port: 53}, {Protocol: model.TCP, Port: 8080}}
		})},
		{"every_form", everyForm()},
		{"egress_deny_several", policy(func(p *firewall.Policy) {
			p.EgressDeny = append(p.EgressDeny, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("0.0.0.0/0"))
		})},
	}
}

// everyForm returns rules that no policy makes, so that every match is tried on
// both sides.
func everyForm() firewall.Ruleset {
	drop := func(r firewall.Rule) firewall.Rule {
		r.Stage, r.Verdict, r.Reason = firewall.Forward, firewall.Drop, "form"
		if r.Family == 0 {
			r.Family = firewall.IPv4
		}
		return r
	}
	devices := []firewall.Devices{{Name: "eth0"}, {Name: "fifteen-letters"}, {Stray: true}, {VMs: true}, {Group: model.AppID(7).Group()}}
	var rules []firewall.Rule
	for _, d := range devices {
		rules = append(rules, drop(firewall.Rule{Family: firewall.Both, From: d}), drop(firewall.Rule{Family: firewall.IPv6, To: d}))
	}
	for _, p := range []string{"0.0.0.0/0", "128.0.0.0/1", "10.1.2.3/13", "192.0.2.7/32"} {
		rules = append(rules, drop(firewall.Rule{Source: netip.MustParsePrefix(p)}), drop(firewall.Rule{Dest: netip.MustParsePrefix(p)}))
	}
	for _, p := range []firewall.Packet{firewall.NotGuest, firewall.Misrouted, firewall.ForeignMAC, firewall.Options, firewall.NotUnicast,
		firewall.Established, firewall.Related, firewall.Invalid} {
		rules = append(rules, drop(firewall.Rule{Packet: p, Service: model.Service{Protocol: model.TCP, Port: 443}}))
	}
	both := firewall.App{Name: "web", Group: model.AppID(1).Group()}
	return firewall.Ruleset{Rules: append(rules,
		firewall.Rule{Stage: firewall.Forward, Family: firewall.IPv6, Packet: firewall.Established, Verdict: firewall.Accept, Reason: "form"},
		firewall.Rule{Stage: firewall.Private, Family: firewall.Both, From: firewall.Devices{Group: both.Group}, Verdict: firewall.Accept, Reason: "half", App: "web"},
		firewall.AppRule(both),
		firewall.Rule{Stage: firewall.Guest, Family: firewall.IPv4, Packet: firewall.ToGuest, Verdict: firewall.Untrack, Reason: "form"},
		firewall.Rule{Stage: firewall.Guest, Family: firewall.IPv4, Dest: netip.MustParsePrefix("172.16.0.0/16"), Packet: firewall.ToGuest, Verdict: firewall.Drop, Reason: "form"},
		firewall.Rule{Stage: firewall.NAT, Family: firewall.Both, Verdict: firewall.Masquerade, Reason: "form"},
	)}
}

// TestApplyPrintsBack: the golden files are what nft prints of the table, and what
// nft makes of the text of Dump is the same table. So the text that we keep beside
// each rule says what the kernel does. Only matches of iptables nft does not read.
func TestApplyPrintsBack(t *testing.T) {
	for _, c := range goldenCases() {
		t.Run(c.name, func(t *testing.T) {
			var dump, listed string
			onOwnKernel(t, func(t *testing.T) {
				d := applied(t, c.rules)
				if got := mustDiff(t, d, c.rules); got != "" {
					t.Errorf("differences after Apply:\n%s", got)
				}
				listed = list(t)
				golden(t, c.name+".txt", listed)
				var err error
				if dump, err = d.Dump(t.Context()); err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(dump, "# flags owner,persist\n") {
					t.Errorf("Dump does not tell the flags:\n%s", dump)
				}
			})
			onOwnKernel(t, func(t *testing.T) {
				dump, listed := withoutXT(dump), withoutXT(listed)
				if out, err := tryNFT(t, dump, "-f", "-"); err != nil {
					t.Fatalf("nft does not read Dump: %v\n%s\n%s", err, out, dump)
				}
				if got := list(t); got != listed {
					t.Errorf("nft makes of Dump\n%s, the table is\n%s", got, listed)
				}
			})
		})
	}
}

// withoutXT leaves out the rules with a match of iptables.
func withoutXT(listing string) string {
	var kept strings.Builder
	for line := range strings.Lines(listing) {
		if !strings.Contains(line, " xt match ") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// TestApplyTwiceWritesOnce: what is there already is not written again, and what
// differs in anything is.
func TestApplyTwiceWritesOnce(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d := applied(t, policy(nil))
		before := generation(t, d)
		mustApply(t, d, policy(nil))
		if after := generation(t, d); after != before {
			t.Errorf("the second Apply made %d transactions", after-before)
		}
		for _, c := range append(goldenCases(), goldenCases()...) {
			mustApply(t, d, c.rules)
			if got := mustDiff(t, d, c.rules); got != "" {
				t.Errorf("%s: differences after Apply:\n%s", c.name, got)
			}
			golden(t, c.name+".txt", list(t))
		}
	})
}

// TestRulesDoNotGrowWithApps is the constant number of rules.
func TestRulesDoNotGrowWithApps(t *testing.T) {
	count := func(apps int) int {
		rendered, err := render(withApps(manyApps(apps)), abilities{matchMAC: true})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, c := range rendered.chains {
			n += len(c.rules)
		}
		return n
	}
	if none, many := count(0), count(1000); none != many {
		t.Errorf("%d rules without apps, %d with 1000", none, many)
	}
}

func TestTooManyApps(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d := applied(t, policy(nil))
		before := generation(t, d)
		all := manyApps(setSize + 1)
		want := "65537 apps have two VMs or more, and the set \"same_app\" holds 65536"
		if err := d.Apply(t.Context(), withApps(all)); err == nil || err.Error() != want {
			t.Errorf("Apply: %v, want %s", err, want)
		}
		if err := d.AddApps(t.Context(), all...); err == nil || err.Error() != want {
			t.Errorf("AddApps: %v, want %s", err, want)
		}
		if after := generation(t, d); after != before {
			t.Errorf("%d transactions were made", after-before)
		}
		if got := mustDiff(t, d, policy(nil)); got != "" {
			t.Errorf("differences:\n%s", got)
		}
	})
}

func TestRemove(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		nft(t, "add", "table", "inet", "others")
		d := mustOpen(t)
		before := nft(t, "list", "ruleset")
		for range 2 {
			if err := d.Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
			mustApply(t, d, policy(nil))
			for range 2 {
				if err := d.Remove(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if got := nft(t, "list", "ruleset"); got != before {
				t.Errorf("tables are\n%s, were\n%s", got, before)
			}
			if dump, err := d.Dump(t.Context()); dump != "" || err != nil {
				t.Errorf("Dump after Remove: %q, %v", dump, err)
			}
		}
	})
}

// TestForeignTable: a table of our name without our comment is left alone by
// everything.
func TestForeignTable(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d := mustOpen(t)
		if _, err := tryNFT(t, `table inet zwrm { chain forward { type filter hook forward priority 0; drop; }; }`, "-f", "-"); err != nil {
			t.Fatal(err)
		}
		before := nft(t, "list", "ruleset")
		_, diff := d.Diff(t.Context(), policy(nil))
		opened, open := Open(t.Context(), nil)
		for name, err := range map[string]error{
			"Open": open, "Preflight": d.Preflight(t.Context()), "Apply": d.Apply(t.Context(), policy(nil)), "Diff": diff,
		} {
			if foreign := (*ForeignError)(nil); !errors.As(err, &foreign) {
				t.Errorf("%s: %v, want a ForeignError", name, err)
			}
		}
		if opened != nil {
			t.Error("Open returns a Dataplane as well")
		}
		if err := d.Remove(t.Context()); err != nil {
			t.Errorf("Remove: %v", err)
		}
		if got := nft(t, "list", "ruleset"); got != before {
			t.Errorf("tables are\n%s, were\n%s", got, before)
		}
	})
}

// TestForeignTableSaysWhatToDo: people read the message.
func TestForeignTableSaysWhatToDo(t *testing.T) {
	want := `table "inet zwrm" of nftables is not ZWRM's: it does not have the comment "zwrm"; look what it is for (nft list table inet zwrm), ` +
		`and delete it (nft delete table inet zwrm) or use firewall = "iptables"`
	if got := (&ForeignError{}).Error(); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}

// TestOpenChangesNothing: what the kernel can do is asked without a transaction.
func TestOpenChangesNothing(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		first := mustOpen(t)
		before := generation(t, first)
		second := mustOpen(t)
		if after := generation(t, first); after != before {
			t.Errorf("Open made %d transactions", after-before)
		}
		if got := second.Losses(); len(got) != 0 {
			t.Errorf("this kernel has all, and Losses says %q", got)
		}
		if !strings.HasPrefix(second.Version(), "nf_tables of Linux ") {
			t.Errorf("Version is %q", second.Version())
		}
		if got := nft(t, "list", "ruleset"); got != "" {
			t.Errorf("tables after Open:\n%s", got)
		}
	})
}

package foreign

import (
	"fmt"
	"strings"
	"testing"

	"zwrm/internal/firewall/xtables"
)

// TestConflicts: what is told of what was found. The texts are in testdata.
func TestConflicts(t *testing.T) {
	chain := func(name xtables.ChainName, end string, lets ...Let) Chain {
		return Chain{Name: name, Policy: "DROP", End: end, Lets: lets}
	}
	programs := func(variant xtables.Variant, tables ...Table) Programs {
		return Programs{Variant: variant, Tables: tables}
	}
	nft := func(table string, hook Hook, priority int, lets ...Let) NFTChain {
		return NFTChain{Family: "inet", Table: table, Name: string(hook), Hook: hook, Priority: priority, Lets: lets}
	}
	forward := []Let{"internet", "established", "vm-to-vm"}
	drop := chain("FORWARD", policyDrop)
	tests := []struct {
		name   string
		survey Survey
	}{
		{"none_nothing_there", Survey{}},
		{"none_our_accepts_handle_it", Survey{Command: xtables.NFT, IPTables: []Programs{programs(xtables.NFT,
			Table{Name: xtables.Filter, Rules: 12, Chains: []Chain{drop, chain("INPUT", policyDrop), chain("OUTPUT", "-j DROP")}})}}},
		{"none_other_variant_is_empty", Survey{Command: xtables.NFT, IPTables: []Programs{programs(xtables.Legacy,
			Table{Name: xtables.Filter, Chains: []Chain{{Name: "FORWARD", Policy: "ACCEPT"}}})}}},
		{"none_other_variant_mended", Survey{Command: xtables.NFT, IPTables: []Programs{programs(xtables.Legacy,
			Table{Name: xtables.Filter, Chains: []Chain{chain("FORWARD", policyDrop, forward...)}})}}},
		{"none_nft_mended", Survey{NFT: []NFTChain{nft("filter", Forward, 0, forward...)}}},
		{"legacy_policy_left_behind", Survey{Command: xtables.NFT, IPTables: []Programs{programs(xtables.Legacy,
			Table{Name: xtables.Filter, Chains: []Chain{drop}})}}},
		{"legacy_rules_that_drop", Survey{Command: xtables.NFT, IPTables: []Programs{programs(xtables.Legacy,
			Table{Name: xtables.Filter, Rules: 3, Chains: []Chain{drop, chain("INPUT", "-j REJECT --reject-with icmp-port-unreachable", "established"), chain("OUTPUT", policyDrop)}})}}},
		{"nft_rules_beside_legacy", Survey{Command: xtables.Legacy, IPTables: []Programs{programs(xtables.NFT,
			Table{Name: xtables.NAT, Rules: 1, Chains: []Chain{{Name: "POSTROUTING", Policy: "ACCEPT"}}})}}},
		{"our_rules_in_other_variant", Survey{Command: xtables.NFT, IPTables: []Programs{programs(xtables.Legacy,
			Table{Name: xtables.Filter, Ours: 17, Chains: []Chain{{Name: "FORWARD", Policy: "ACCEPT"}}})}}},
		{"other_table_of_iptables", Survey{Command: xtables.NFT, IPTables: []Programs{programs(xtables.NFT,
			Table{Name: "mangle", Rules: 1, Chains: []Chain{drop, chain("PREROUTING", "-j DROP")}})}}},
		{"hidden", Survey{Command: xtables.NFT, IPTables: []Programs{programs(xtables.NFT,
			Table{Name: xtables.Filter, Hidden: true}, Table{Name: xtables.NAT, Hidden: true})}}},
		{"nft_forward", Survey{NFT: []NFTChain{nft("filter", Forward, 0)}}},
		{"nft_input_half_mended", Survey{NFT: []NFTChain{nft("filter", Input, 0, "established", "ping-gateway")}}},
		{"nft_output_owned", Survey{NFT: []NFTChain{{Family: "ip", Table: "guard", Name: "out", Hook: Output, Priority: -5, Owned: true}}}},
		{"nft_prerouting", Survey{NFT: []NFTChain{nft("filter", Prerouting, -150), nft("raw", Prerouting, -300)}}},
		{"firewalld_panic", Survey{NFT: []NFTChain{nft("firewalld_policy_drop", Prerouting, -310)}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := conflictText(Conflicts(test.survey, want()))
			if strings.HasPrefix(test.name, "none_") {
				if got != "" {
					t.Errorf("conflicts:\n%s", got)
				}
				return
			}
			compareGolden(t, "conflict_"+test.name+".txt", got)
		})
	}
}

// TestConflictsOfEither: with the dataplane iptables the same stands in the way.
func TestConflictsOfEither(t *testing.T) {
	s := Survey{Command: xtables.NFT,
		IPTables: []Programs{{Variant: xtables.Legacy, Tables: []Table{{Name: xtables.Filter, Rules: 1, Chains: []Chain{{Name: "FORWARD", End: policyDrop}}}}}},
		NFT:      []NFTChain{{Family: "inet", Table: "filter", Name: "forward", Hook: Forward}}}
	iptables := want()
	iptables.Accepts = false
	if got, want := conflictText(Conflicts(s, iptables)), conflictText(Conflicts(s, want())); got != want || got == "" {
		t.Errorf("conflicts\n%s, want\n%s", got, want)
	}
}

func conflictText(all []Conflict) string {
	var out strings.Builder
	for _, c := range all {
		kind := "may drop some day"
		if c.Drops {
			kind = "drops"
		}
		fmt.Fprintf(&out, "%s: %s %s\n\t%s\n", kind, c.Subject, c.What, strings.ReplaceAll(c.Mend, "\n", "\n\t"))
	}
	return out.String()
}

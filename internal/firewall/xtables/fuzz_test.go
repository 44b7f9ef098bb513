package xtables

import "testing"

// FuzzParse: whatever iptables-save prints, also of rules of others, it is
// read.
func FuzzParse(f *testing.F) {
	f.Add("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [1:2]\n-A INPUT -m comment --comment \"zwrm: hook\" -j ZWRM-INPUT\nCOMMIT\n")
	f.Add("[12:34] -A INPUT -j DROP\n:\n*\n-A\n[")
	f.Add("# Table `nat' is incompatible, use 'nft' tool.\n")
	f.Add("*nat\n-A POSTROUTING -g \n:X\n[1:] -A X \"")
	f.Fuzz(func(t *testing.T, text string) {
		for name, table := range Parse(text) {
			if len(table.Order) > len(text) {
				t.Errorf("table %q has %d chains in %d bytes", name, len(table.Order), len(text))
			}
			for _, rules := range table.Chains {
				for _, rule := range rules {
					_, _ = Calls(rule)
				}
			}
		}
	})
}

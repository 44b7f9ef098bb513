package iptables

import (
	"strings"
	"testing"
)

// Rules as others write them who mean ours.
const (
	hookForward = `-m comment --comment "zwrm: hook" -j ZWRM-FORWARD`
	hookInput   = `-m comment --comment "zwrm: hook" -j ZWRM-INPUT`
	ruleDB      = `-m devgroup --src-group 0x5a000001 --dst-group 0x5a000001 -m comment --comment "zwrm: app db" -j ACCEPT`
	ruleWeb     = `-m devgroup --src-group 0x5a000002 --dst-group 0x5a000002 -m comment --comment "zwrm: app web" -j ACCEPT`
	ruleLast    = `-m comment --comment "zwrm: other-app" -j DROP`
	ruleHost    = `-m devgroup --src-group 0x5a000000/0xff000000 -m comment --comment "zwrm: host" -j DROP`
)

type damage struct {
	name   string
	tool   string // default iptables
	table  string // default filter
	change []string
	want   []string // differences
}

func damages() []damage {
	return []damage{
		{name: "flushed chain", change: []string{"-F ZWRM-PRIVATE"}, want: []string{
			"iptables filter ZWRM-PRIVATE rule 1: wanted " + ruleDB + ", found missing",
			"iptables filter ZWRM-PRIVATE rule 2: wanted " + ruleWeb + ", found missing",
			"iptables filter ZWRM-PRIVATE rule 3: wanted " + ruleLast + ", found missing",
		}},
		{name: "deleted chain", table: "nat", change: []string{"-F POSTROUTING", "-F ZWRM-NAT", "-X ZWRM-NAT", "-A POSTROUTING -o eth9 -j MASQUERADE"}, want: []string{
			"iptables nat ZWRM-NAT: wanted chain of 1 rule, found missing",
			`iptables nat POSTROUTING rule 1: wanted -m comment --comment "zwrm: hook" -j ZWRM-NAT, found missing`,
		}},
		{name: "deleted rule", change: []string{"-D ZWRM-PRIVATE " + ruleLast}, want: []string{
			"iptables filter ZWRM-PRIVATE rule 3: wanted " + ruleLast + ", found missing",
		}},
		{name: "removed jump", change: []string{"-D FORWARD " + hookForward}, want: []string{
			"iptables filter FORWARD rule 1: wanted " + hookForward + ", found missing",
		}},
		{name: "doubled jump", change: []string{"-A FORWARD " + hookForward, "-I DOCKER 1 " + hookForward}, want: []string{
			"iptables filter FORWARD rule 4: wanted none, found " + hookForward,
			"iptables filter DOCKER rule 1: wanted none, found " + hookForward,
		}},
		{name: "foreign rule before the jump", change: []string{"-I INPUT 1 -i lo -j ACCEPT"}, want: []string{
			"iptables filter INPUT rule 1: wanted " + hookInput + ", found as rule 2",
		}},
		{name: "jump of another version", change: []string{
			"-D INPUT " + hookInput, `-I INPUT 1 -m comment --comment "zwrm: old" -j ZWRM-INPUT`}, want: []string{
			"iptables filter INPUT rule 1: wanted " + hookInput + ", found missing",
			`iptables filter INPUT rule 1: wanted none, found -m comment --comment "zwrm: old" -j ZWRM-INPUT`,
		}},
		{name: "rule inserted in our chain", change: []string{"-I ZWRM-INPUT 2 -p tcp -m tcp --dport 22 -j ACCEPT"}, want: []string{
			"iptables filter ZWRM-INPUT rule 2: wanted none, found -p tcp -m tcp --dport 22 -j ACCEPT",
		}},
		{name: "rule changed", change: []string{"-D ZWRM-INPUT " + ruleHost, "-A ZWRM-INPUT " + strings.Replace(ruleHost, "DROP", "ACCEPT", 1)}, want: []string{
			"iptables filter ZWRM-INPUT rule 5: wanted " + ruleHost + ", found " + strings.Replace(ruleHost, "DROP", "ACCEPT", 1),
		}},
		{name: "rules reordered", change: []string{"-D ZWRM-INPUT " + ruleHost, "-I ZWRM-INPUT 1 " + ruleHost}, want: []string{
			"iptables filter ZWRM-INPUT rule 5: wanted " + ruleHost + ", found as rule 1",
		}},
		{name: "app behind the drop", change: []string{"-D ZWRM-PRIVATE " + ruleDB, "-A ZWRM-PRIVATE " + ruleDB}, want: []string{
			"iptables filter ZWRM-PRIVATE rule 3: wanted " + ruleLast + ", found as rule 2",
		}},
		{name: "app twice", change: []string{"-I ZWRM-PRIVATE 1 " + ruleWeb}, want: []string{
			"iptables filter ZWRM-PRIVATE rule 3: wanted none, found " + ruleWeb,
		}},
		{name: "app that is gone", change: []string{"-I ZWRM-PRIVATE 2 " + strings.ReplaceAll(ruleWeb, "0x5a000002", "0x5a000007")}, want: []string{
			"iptables filter ZWRM-PRIVATE rule 2: wanted none, found " + strings.ReplaceAll(ruleWeb, "0x5a000002", "0x5a000007"),
		}},
		{name: "chain of another version", change: []string{":ZWRM-OLD - [0:0]", "-A ZWRM-OLD " + ruleHost, "-A ZWRM-INPUT -j ZWRM-OLD"}, want: []string{
			"iptables filter ZWRM-INPUT rule 6: wanted none, found -j ZWRM-OLD",
			"iptables filter ZWRM-OLD: wanted none, found chain of 1 rule",
		}},
		{name: "IPv6", tool: "ip6tables", table: "raw", change: []string{"-F ZWRM-RAW",
			`-A ZWRM-RAW -m devgroup --src-group 0x5a000000/0xff000000 -m comment --comment "zwrm: no-ipv6" -j DROP`}, want: []string{
			`ip6tables raw ZWRM-RAW rule 1: wanted -m devgroup --src-group 0x5a000000 -m comment --comment "zwrm: unassigned" -j DROP, found missing`,
			`ip6tables raw ZWRM-RAW rule 2: wanted -i zvm+ -m devgroup ! --src-group 0x5a000000/0xff000000 -m comment --comment "zwrm: stray-tap" -j DROP, found missing`,
		}},
	}
}

// TestRepair: Diff names each thing that is not as it should be, Apply mends it
// and leaves the rules of others as they are.
func TestRepair(t *testing.T) {
	for _, c := range damages() {
		t.Run(c.name, func(t *testing.T) {
			onEachKernel(t, func(t *testing.T, k *kernel) {
				tool, table := orDefault(c.tool, "iptables"), orDefault(c.table, "filter")
				d := k.applied(t, policy(nil))
				k.restore(t, tool, "*"+table+"\n"+strings.Join(c.change, "\n")+"\nCOMMIT\n")
				others := grep(k.saveBoth(t), false)
				if got, want := mustDiff(t, d, policy(nil)), strings.Join(c.want, "\n")+"\n"; got != want {
					t.Errorf("differences\n%s, want\n%s", got, want)
				}
				if err := d.Apply(t.Context(), policy(nil)); err != nil {
					t.Fatal(err)
				}
				compareGolden(t, "private_on_two_apps", mustDump(t, d))
				if got := grep(k.saveBoth(t), false); got != others {
					t.Errorf("rules of others are\n%s, were\n%s", got, others)
				}
			})
		})
	}
}

// TestOrderOfApps: all rules of apps accept, so their order is no difference.
func TestOrderOfApps(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		d := k.applied(t, policy(nil))
		k.restore(t, "iptables", "*filter\n-D ZWRM-PRIVATE "+ruleWeb+"\n-I ZWRM-PRIVATE 1 "+ruleWeb+"\nCOMMIT\n")
		if got := mustDiff(t, d, policy(nil)); got != "" {
			t.Errorf("differences:\n%s", got)
		}
	})
}

// TestRepairOfEverything: after `iptables -F` and -X of every table by somebody
// else, which is what a restart of some firewalls does.
func TestRepairOfEverything(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		d := k.applied(t, policy(nil))
		if err := d.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := mustDiff(t, d, policy(nil))
		if n := strings.Count(got, "\n"); n != 18 { // 10 chains, 8 jumps
			t.Errorf("%d differences, want 18:\n%s", n, got)
		}
		if err := d.Apply(t.Context(), policy(nil)); err != nil {
			t.Fatal(err)
		}
		compareGolden(t, "private_on_two_apps", mustDump(t, d))
	})
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

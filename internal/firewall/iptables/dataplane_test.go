package iptables

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"zwrm/internal/firewall"
	"zwrm/internal/model"
)

// TestApplyPrintsBack: the golden files are what iptables-save prints of the rules
// after they were applied, letter by letter.
func TestApplyPrintsBack(t *testing.T) {
	for _, c := range goldenCases() {
		t.Run(c.name, func(t *testing.T) {
			onEachKernel(t, func(t *testing.T, k *kernel) {
				before := k.saveBoth(t)
				d := k.applied(t, c.rules)
				dump := mustDump(t, d)
				compareGolden(t, c.name, dump)
				var lines []string
				for line := range strings.Lines(dump) {
					if strings.HasPrefix(line, "-A ") {
						lines = append(lines, line)
					}
				}
				after := k.saveBoth(t)
				for line := range strings.Lines(grep(after, true)) {
					if strings.HasPrefix(line, "-A ") && !slices.Contains(lines, line) {
						t.Errorf("iptables-save prints %q, which Dump does not", line)
					}
				}
				if got := grep(after, false); got != before {
					t.Errorf("rules of others are\n%s, were\n%s", got, before)
				}
			})
		})
	}
}

// TestRenderPrintsBack: every form of a rule that may be rendered is what
// iptables-save prints.
func TestRenderPrintsBack(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		for _, c := range renderCases() {
			t.Run(c.name, func(t *testing.T) {
				c.rule.Stage, c.rule.Family = firewall.Forward, c.family
				rules := firewall.Ruleset{Rules: []firewall.Rule{c.rule}}
				d := k.applied(t, rules)
				if got := mustDiff(t, d, rules); got != "" {
					t.Errorf("differences after Apply:\n%s", got)
				}
				if err := d.Remove(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

func TestApplyTwiceWritesOnce(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		d := k.open(t)
		for _, want := range []string{
			"iptables-save ip6tables-save ip6tables-restore iptables-restore",
			"iptables-save ip6tables-save",
		} {
			if err := d.Apply(t.Context(), policy(nil)); err != nil {
				t.Fatal(err)
			}
			if got := k.take(); got != want {
				t.Errorf("Apply ran %q, want %q", got, want)
			}
		}
		if got := mustDiff(t, d, policy(nil)); got != "" {
			t.Errorf("differences after Apply:\n%s", got)
		}
	})
}

// TestApplyFollowsPolicy: from any rules to any others, without a trace.
func TestApplyFollowsPolicy(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		d := k.open(t)
		cases := goldenCases()
		for _, c := range append(cases, cases...) {
			if err := d.Apply(t.Context(), c.rules); err != nil {
				t.Fatal(err)
			}
			if got := mustDiff(t, d, c.rules); got != "" {
				t.Errorf("%s: differences after Apply:\n%s", c.name, got)
			}
			compareGolden(t, c.name, mustDump(t, d))
		}
	})
}

func TestRemoveLeavesOthers(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		d := k.open(t)
		before := k.saveBoth(t)
		if err := d.Remove(t.Context()); err != nil {
			t.Errorf("nothing to remove: %v", err)
		}
		if got, want := k.take(), "iptables-save ip6tables-save"; got != want {
			t.Errorf("with nothing to remove it ran %q, want %q", got, want)
		}
		if err := d.Apply(t.Context(), policy(nil)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := d.Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := k.saveBoth(t); got != before {
				t.Errorf("rules are\n%s, were\n%s", got, before)
			}
		}
	})
}

// TestRemoveChainInUse: the kernel keeps a chain that a foreign rule calls, and
// that rule is not ours to delete.
func TestRemoveChainInUse(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		d := k.applied(t, policy(nil))
		k.restore(t, "iptables", "*filter\n-A DOCKER -i docker1 -j ZWRM-FORWARD\nCOMMIT\n")
		err := d.Remove(t.Context())
		if err == nil || !strings.Contains(err.Error(), `"-A DOCKER -i docker1 -j ZWRM-FORWARD"`) {
			t.Errorf("error %v, want one that names the rule", err)
		}
		want := "# iptables -t filter -S\n-N ZWRM-FORWARD\n"
		if got := mustDump(t, d); got != want {
			t.Errorf("after Remove there is\n%s, want\n%s", got, want)
		}
		k.restore(t, "iptables", "*filter\n-D DOCKER -i docker1 -j ZWRM-FORWARD\nCOMMIT\n")
		if err := d.Remove(t.Context()); err != nil {
			t.Error(err)
		}
		if got := mustDump(t, d); got != "" {
			t.Errorf("after the second Remove there is\n%s", got)
		}
	})
}

// TestPrivateChainInUse: a foreign rule that calls the private chain must not
// stand in the way of switching private networking off.
func TestPrivateChainInUse(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		off := policy(func(p *firewall.Policy) { p.Private = false })
		d := k.applied(t, policy(nil))
		k.restore(t, "iptables", "*filter\n-A DOCKER -j ZWRM-PRIVATE\nCOMMIT\n")
		if err := d.Apply(t.Context(), off); err != nil {
			t.Fatal(err)
		}
		if got := mustDiff(t, d, off); got != "" {
			t.Errorf("differences after Apply:\n%s", got)
		}
		if got := grep(k.save(t, "iptables"), true); strings.Contains(got, "-A ZWRM-PRIVATE") {
			t.Errorf("the private chain still has rules:\n%s", got)
		}
	})
}

func TestForeignChain(t *testing.T) {
	tests := []struct{ name, tool, table, chain, rules string }{
		{"a chain we want", "iptables", "filter", "ZWRM-FORWARD", "-A ZWRM-FORWARD -j ACCEPT"},
		{"a chain of our prefix", "iptables", "nat", "ZWRM-LAB", "-A ZWRM-LAB -j ACCEPT"},
		{"IPv6", "ip6tables", "raw", "ZWRM-RAW", "-A ZWRM-RAW -m comment --comment \"not zwrm: really\" -j ACCEPT"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onEachKernel(t, func(t *testing.T, k *kernel) {
				d := k.open(t)
				k.restore(t, test.tool, "*"+test.table+"\n:"+test.chain+" - [0:0]\n"+test.rules+"\nCOMMIT\n")
				before := k.saveBoth(t)
				_, openErr := open(t.Context(), k.sys)
				for name, err := range map[string]error{
					"Open": openErr, "Preflight": d.Preflight(t.Context()), "Apply": d.Apply(t.Context(), policy(nil)),
					"AddApps": d.AddApps(t.Context(), app(3, "new")),
				} {
					var foreign *ForeignError
					if !errors.As(err, &foreign) {
						t.Errorf("%s: error %v, want a *ForeignError", name, err)
						continue
					}
					if want := (ForeignError{test.tool, TableName(test.table), ChainName(test.chain)}); *foreign != want {
						t.Errorf("%s: got %+v, want %+v", name, *foreign, want)
					}
				}
				if err := d.Remove(t.Context()); err != nil {
					t.Error(err)
				}
				if got := k.saveBoth(t); got != before {
					t.Errorf("rules are\n%s, were\n%s", got, before)
				}
			})
		})
	}
}

func TestForeignErrorSaysWhatToDo(t *testing.T) {
	got := (&ForeignError{"iptables", Filter, ForwardChain}).Error()
	want := `chain "ZWRM-FORWARD" of table "filter" in iptables is not ZWRM's: none of its rules has a comment that begins with "zwrm:"; ` +
		`rename it (iptables -t filter -E ZWRM-FORWARD NEW-NAME) or delete it (iptables -t filter -F ZWRM-FORWARD, then -X ZWRM-FORWARD)`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestOurChains: an empty chain, and one in which a single rule is ours, are ours.
func TestOurChains(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		d := k.open(t)
		before := k.saveBoth(t)
		k.restore(t, "iptables", `*filter
:ZWRM-FORWARD - [0:0]
:ZWRM-OLD - [0:0]
-A ZWRM-FORWARD -j ACCEPT
-A ZWRM-FORWARD -m comment --comment "zwrm: unassigned" -j DROP
COMMIT
`)
		if err := d.Preflight(t.Context()); err != nil {
			t.Error(err)
		}
		if err := d.Apply(t.Context(), policy(nil)); err != nil {
			t.Fatal(err)
		}
		compareGolden(t, "private_on_two_apps", mustDump(t, d))
		if err := d.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := k.saveBoth(t); got != before {
			t.Errorf("rules are\n%s, were\n%s", got, before)
		}
	})
}

func TestThousandApps(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		var apps []firewall.App
		for id := range 1000 {
			apps = append(apps, app(model.AppID(id+1), "many"))
		}
		full := withApps(apps...)
		d := k.applied(t, full)
		if got := mustDiff(t, d, full); got != "" {
			t.Errorf("differences after Apply:\n%s", got)
		}
		if err := d.RemoveApps(t.Context(), apps...); err != nil {
			t.Fatal(err)
		}
		if err := d.AddApps(t.Context(), apps...); err != nil {
			t.Fatal(err)
		}
		if got, want := k.take(), "iptables-save ip6tables-save iptables-restore iptables-restore"; got != want {
			t.Errorf("ran %q, want %q", got, want)
		}
		if got := mustDiff(t, d, full); got != "" {
			t.Errorf("differences after RemoveApps and AddApps:\n%s", got)
		}
		if err := d.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestWriteOutlivesRequest: a change that has begun is not cut off, and one that
// has not does not begin.
func TestWriteOutlivesRequest(t *testing.T) {
	k := newFake()
	d := k.applied(t, withApps())
	ctx, cancel := context.WithCancel(t.Context())
	k.fail = func(string) error { cancel(); return nil } // the request is given up while the program runs
	if err := d.AddApps(ctx, app(1, "db")); err != nil {
		t.Errorf("the write was cut off: %v", err)
	}
	if err := d.AddApps(ctx, app(2, "web")); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	k.fail = nil
	if got := mustDiff(t, d, withApps(app(1, "db"))); got != "" {
		t.Errorf("differences:\n%s", got)
	}
}

// TestFailedFamily: what fails in one family is said, and Remove goes on.
func TestFailedFamily(t *testing.T) {
	k := newFake()
	d := k.applied(t, policy(nil))
	k.fail = func(program string) error {
		if program == "iptables-restore" {
			return errors.New("line 7 failed")
		}
		return nil
	}
	err := d.Remove(t.Context())
	if err == nil || err.Error() != "remove the rules of iptables: line 7 failed" {
		t.Errorf("error %v", err)
	}
	k.fail = nil
	if got := mustDump(t, d); got == "" || strings.Contains(got, "ip6tables") {
		t.Errorf("after a Remove that failed for IPv4 there is\n%s", got)
	}
}

package daemon_test

import (
	"testing"

	"zwrm/test/zwrmtest"
)

// inNftables is private() with the dataplane nftables.
func inNftables() zwrmtest.Settings {
	settings := private()
	settings["network.firewall"] = `"nftables"`
	return settings
}

// TestNftablesIsOurs: while zwrmd runs with the dataplane nftables, nobody else changes
// its table, and a flush of everything passes it by.
func TestNftablesIsOurs(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, inNftables())
	d.Attach(t, "one", "web")
	d.Attach(t, "two", "web")
	before := h.Run(t, "nft", "list", "table", "inet", "zwrm")
	for _, command := range []string{
		"delete table inet zwrm", "flush table inet zwrm", "insert rule inet zwrm forward accept", "flush set inet zwrm same_app",
		"add element inet zwrm same_app { 0x5a000001 . 0x5a000002 }",
	} {
		if r := zwrmtest.Try(t, h.Namespace, "nft", command); r.Status == 0 {
			t.Errorf("nft %s succeeds", command)
		}
	}
	h.Run(t, "nft", "flush", "ruleset")
	if got := h.Run(t, "nft", "list", "table", "inet", "zwrm"); got != before {
		t.Errorf("the table is\n%s, was\n%s", got, before)
	}
	if got := d.Must(t, "network", "check"); got != "in sync\n" {
		t.Errorf("check: %q", got)
	}
}

// TestNftablesAfterKill: what others did to the table while no zwrmd lived is mended by
// the next start.
func TestNftablesAfterKill(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, inNftables())
	d.Attach(t, "one", "web")
	d.Attach(t, "two", "web")
	want := tableOf(t, h)
	for _, spoil := range []string{
		"delete element inet zwrm same_app { 0x5a000001 . 0x5a000001 }",
		"add element inet zwrm same_app { 0x5a000001 . 0x5a000002 }",
		"insert rule inet zwrm forward accept",
		"flush chain inet zwrm input",
		"add chain inet zwrm more { type filter hook forward priority -10; }",
		"flush ruleset",
		"list ruleset",
	} {
		d.Kill()
		h.Run(t, "nft", spoil)
		d.Start(t)
		if got := tableOf(t, h); got != want {
			t.Errorf("after %q the table is\n%s, was\n%s", spoil, got, want)
		}
		if got := d.Must(t, "network", "check"); got != "in sync\n" {
			t.Errorf("after %q: %s", spoil, got)
		}
	}
}

func tableOf(t *testing.T, h *zwrmtest.Host) string {
	t.Helper()
	return h.Run(t, "nft", "-s", "list", "table", "inet", "zwrm")
}

// TestForeignTableStays: a table of nftables with our name is somebody's, whatever the
// dataplane iptables does.
func TestForeignTableStays(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	h.Run(t, "nft", "table inet zwrm { chain forward { type filter hook forward priority 0; counter; }; }")
	before := tableOf(t, h)
	d := h.Start(t, private())
	d.Attach(t, "one", "web")
	d.Must(t, "network", "repair")
	d.Stop(t)
	if got := tableOf(t, h); got != before {
		t.Errorf("the table is\n%s, was\n%s", got, before)
	}
}

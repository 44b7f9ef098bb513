package daemon_test

import (
	"strings"
	"testing"
	"time"

	"zwrm/test/zwrmtest"
)

// TestForeignWhileRunning: what takes a name of ours while zwrmd runs is reported and
// left alone: network check has exit status 4 and a line for it, and repair is none.
func TestForeignWhileRunning(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, private())
	shell(t, h, "ip tuntap add zvm7 mode tap")
	before := h.Dump(t)
	if r := d.Zwrm(t, "network", "check"); r.Status != 4 || !strings.Contains(r.Stdout, "link zvm7") {
		t.Errorf("check: exit status %d, %s", r.Status, r.Stdout)
	}
	if got := d.Must(t, "network", "repair"); got != "nothing to mend\n" {
		t.Errorf("repair: %s", got)
	}
	h.Same(t, before)
}

// TestMTU: TAPs have the MTU of the external interface, and follow it.
func TestMTU(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	shell(t, h, "ip link set eth0 mtu 1400")
	d := h.Start(t, private())
	tap := d.Attach(t, "one", "web").TAP
	contains(t, tap, h.Run(t, "ip", "link", "show", tap), " mtu 1400 ")
	contains(t, "status", d.Must(t, "network", "status"), "MTU:                 1400\n")
	shell(t, h, "ip link set eth0 mtu 1300")
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(h.Run(t, "ip", "link", "show", tap), " mtu 1300 ") && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	contains(t, tap, h.Run(t, "ip", "link", "show", tap), " mtu 1300 ")
	contains(t, "status", d.Must(t, "network", "status"), "MTU:                 1300\n")
	contains(t, "events", d.Must(t, "events"), "uplink  eth0: mtu 1300, was 1400: TAPs follow")
}

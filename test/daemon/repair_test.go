package daemon_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"zwrm/test/zwrmtest"
)

// TestDrift: network check finds each change of links and settings that somebody else
// made, with exit status 4 and a line for it, and changes nothing; network repair
// mends it.
func TestDrift(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		spoil string // commands
		says  []string
	}{
		{"TAP deleted", "ip link del zvm0", []string{"link zvm0", "missing"}},
		{"TAP in another app's group", "ip link set zvm0 group 0x5a000002", []string{"link zvm0", "group 0x5a000001", "group 0x5a000002"}},
		{"TAP down", "ip link set zvm0 down", []string{"link zvm0", "up", "down"}},
		{"TAP without address", "ip address flush dev zvm0", []string{"link zvm0", "inet 172.16.0.1/30", "inet none"}},
		{"TAP with another address", "ip address add 192.168.7.1/24 dev zvm0", []string{"link zvm0", "192.168.7.1/24"}},
		{"TAP with another MTU", "ip link set zvm0 mtu 1400", []string{"link zvm0", "mtu 1500", "mtu 1400"}},
		{"TAP with another Ethernet address", "ip link set zvm0 address 02:00:00:00:00:01", []string{"link zvm0", "02:5a:ff:ff:ff:fe"}},
		{"TAP that no VM has", "ip tuntap add zvm77 mode tap\nip link set zvm77 group 0x5a000001", []string{"link zvm77", "no VM has this slot"}},
		{"bridge deleted", "ip link del zwrmd0", []string{"bridge zwrmd0", "missing"}},
		{"bridge down", "ip link set zwrmd0 down", []string{"bridge zwrmd0", "down"}},
		{"setting of a TAP", "sysctl -qw net.ipv4.conf.zvm0.rp_filter=0", []string{"link zvm0", "rp_filter = 0, not 1"}},
		{"IPv6 on a TAP", "sysctl -qw net.ipv6.conf.zvm0.disable_ipv6=0", []string{"link zvm0", "disable_ipv6 = 0, not 1"}},
		{"forwarding off", "sysctl -qw net.ipv4.ip_forward=0", []string{"sysctl net/ipv4/ip_forward"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := zwrmtest.NewHost(t)
			h.Foreign(t)
			d := h.Start(t, private())
			d.Attach(t, "one", "web")
			d.Attach(t, "two", "web")
			d.Attach(t, "three", "db")
			if got := d.Must(t, "network", "check"); got != "in sync\n" {
				t.Errorf("before: %q", got)
			}
			before := h.Dump(t)
			shell(t, h, test.spoil)
			spoilt := h.Dump(t)
			if spoilt == before {
				t.Fatal("nothing was changed")
			}
			check := d.Zwrm(t, "network", "check")
			if check.Status != 4 {
				t.Errorf("check: exit status %d, want 4; stderr %q", check.Status, check.Stderr)
			}
			contains(t, "check", check.Stdout, test.says...)
			h.Same(t, spoilt)
			if repair := d.Must(t, "network", "repair"); repair != check.Stdout {
				t.Errorf("repair answers\n%swhere check says\n%s", repair, check.Stdout)
			}
			h.Same(t, before)
			if got := d.Must(t, "network", "check"); got != "in sync\n" {
				t.Errorf("after: %q", got)
			}
			status := d.Must(t, "network", "status")
			if strings.Contains(status, "last repair:         none") {
				t.Errorf("status does not tell of the repair:\n%s", status)
			}
		})
	}
}

// TestDriftOfRules: the kernel tells of changed rules, so they are mended at once and
// without being asked, and each is told of.
func TestDriftOfRules(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		spoil string // commands
		says  []string
	}{
		{"private chain flushed", "iptables -F ZWRM-PRIVATE", []string{"iptables filter ZWRM-PRIVATE", "zwrm: app web", "zwrm: other-app", "missing"}},
		{"rule removed", "iptables -t nat -F ZWRM-NAT", []string{"iptables nat ZWRM-NAT", "MASQUERADE"}},
		{"rule added", "iptables -I ZWRM-FORWARD 1 -j ACCEPT", []string{"iptables filter ZWRM-FORWARD rule 1", "-j ACCEPT"}},
		{"hook removed", "iptables -D FORWARD 1", []string{"iptables filter FORWARD rule 1", "-j ZWRM-FORWARD"}},
		{"chain renamed", "iptables -E ZWRM-INPUT ZWRM-GONE", []string{"iptables filter ZWRM-INPUT", "missing"}},
		{"rules of IPv6 flushed", "ip6tables -t raw -F ZWRM-RAW", []string{"ip6tables raw ZWRM-RAW", "zwrm: no-ipv6"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := zwrmtest.NewHost(t)
			h.Foreign(t)
			d := h.Start(t, private())
			d.Attach(t, "one", "web")
			d.Attach(t, "two", "web")
			before := h.Dump(t)
			shell(t, h, test.spoil)
			contains(t, "last repair", awaitRepair(t, d), test.says...)
			h.Same(t, before)
			if got := d.Must(t, "network", "check"); got != "in sync\n" {
				t.Errorf("after: %q", got)
			}
		})
	}
}

// awaitRepair waits until zwrmd has mended something by itself, and returns what. It
// looks from time to time as well, but less often than this waits for.
func awaitRepair(t *testing.T, d *zwrmtest.Daemon) string {
	t.Helper()
	client, started := d.Client(t), time.Now()
	for poll := time.NewTicker(20 * time.Millisecond); ; <-poll.C {
		status, err := client.NetworkStatus(t.Context())
		must(t, err)
		if status.LastRepair != nil {
			return fmt.Sprint(status.LastRepair.Differences)
		}
		if time.Since(started) > 15*time.Second {
			t.Fatal("nothing is mended after 15 seconds")
		}
	}
}

// TestHookComesFirst: a rule that somebody puts before ours is found, and ours is
// first again, while the other rule stays.
func TestHookComesFirst(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, private())
	shell(t, h, "iptables -I FORWARD 1 -j ACCEPT")
	contains(t, "last repair", awaitRepair(t, d), "iptables filter FORWARD rule 1", "as rule 2")
	want := "-P FORWARD ACCEPT\n" + `-A FORWARD -m comment --comment "zwrm: hook" -j ZWRM-FORWARD` + "\n-A FORWARD -j ACCEPT\n"
	if got := h.Run(t, "iptables", "-S", "FORWARD"); got != want {
		t.Errorf("FORWARD is\n%swant\n%s", got, want)
	}
}

// TestForeignWhileRunning: what takes a name of ours while zwrmd runs is reported and
// left alone.
func TestForeignWhileRunning(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, private())
	shell(t, h, "ip tuntap add zvm7 mode tap")
	before := h.Dump(t)
	if r := d.Zwrm(t, "network", "check"); r.Status != 4 || !strings.Contains(r.Stdout, "link zvm7") {
		t.Errorf("check: exit status %d, %s", r.Status, r.Stdout)
	}
	d.Zwrm(t, "network", "repair")
	h.Same(t, before)
}

// TestRepairsByItself: zwrmd mends what somebody else changed without being asked, and
// says so.
func TestRepairsByItself(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, private())
	d.Attach(t, "one", "web")
	before := h.Dump(t)
	shell(t, h, "ip link set zvm0 down\niptables -F ZWRM-PRIVATE")
	awaitRepair(t, d)
	h.Same(t, before)
	contains(t, "log", d.Log(), "network mended", "iptables filter ZWRM-PRIVATE", "link zvm0")
}

// TestMTU: TAPs have the MTU of the external interface.
func TestMTU(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	shell(t, h, "ip link set eth0 mtu 1400")
	d := h.Start(t, private())
	tap := d.Attach(t, "one", "web").TAP
	contains(t, tap, h.Run(t, "ip", "link", "show", tap), " mtu 1400 ")
	contains(t, "status", d.Must(t, "network", "status"), "MTU:                 1400\n")
	shell(t, h, "ip link set eth0 mtu 1300")
	d.Must(t, "network", "check")
	d.Restart(t)
	contains(t, tap+" after a restart", h.Run(t, "ip", "link", "show", tap), " mtu 1300 ")
}

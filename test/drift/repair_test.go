package drift_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// drift is a change that somebody makes behind zwrmd's back.
type drift struct {
	name  string
	spoil string   // commands
	says  []string // words of the event's object and message
	by    string   // the program that the event names; empty: none
	mend  string   // commands that take away what is not zwrmd's to take away
}

// atOnce is how many changes one zwrmd is put to: after a few more it would take them
// for a fight.
const atOnce = 4

// links are about TAPs and so forth, with either dataplane. zvm0 to zvm2 are of app
// web, which is 1.
func links() []drift {
	return []drift{
		{"TAP deleted", "ip link del zvm0", []string{"link zvm0", "found missing"}, "", ""},
		{"TAP renamed", "ip link set zvm1 name away", []string{"link zvm1", "name zvm1", "name away"}, "", ""},
		{"TAP down", "ip link set zvm2 down", []string{"link zvm2", "wanted up, found down"}, "", ""},
		{"TAP in another app's group", "ip link set zvm0 group 0x5a000002", []string{"link zvm0", "group 0x5a000001", "group 0x5a000002"}, "", ""},
		{"TAP in no group of ours", "ip link set zvm1 group default", []string{"link zvm1", "wanted group 0x5a000001, found group 0x0"}, "", ""},
		{"TAP without address", "ip address flush dev zvm2", []string{"link zvm2", "wanted inet 172.16.0.9/30, found inet none"}, "process", ""},
		{"TAP with another address", "ip address add 192.168.7.1/24 dev zvm0", []string{"link zvm0", "192.168.7.1/24"}, "process", ""},
		{"route removed", "ip route del 172.16.0.4/30", []string{"link zvm1", "route to 172.16.0.4/30"}, "process", ""},
		{"local route removed", "ip route del local 172.16.0.9 dev zvm2 table local", []string{"link zvm2", "route to 172.16.0.9/32"}, "process", ""},
		{"route replaced", "ip route replace 172.16.0.4/30 dev zvm0 proto kernel scope link", []string{"link zvm1", "route to 172.16.0.4/30"}, "process", ""},
		{"TAP with another MTU", "ip link set zvm0 mtu 1400", []string{"link zvm0", "mtu 1500", "mtu 1400"}, "", ""},
		{"TAP with another Ethernet address", "ip link set zvm1 address 02:00:00:00:00:01", []string{"link zvm1", "02:5a:ff:ff:ff:fe"}, "", ""},
		{"check of sources off", "sysctl -qw net.ipv4.conf.zvm0.rp_filter=0", []string{"link zvm0", "rp_filter = 0, not 1"}, "", ""},
		{"forwarding of a TAP off", "sysctl -qw net.ipv4.conf.zvm1.forwarding=0", []string{"link zvm1", "forwarding = 0, not 1"}, "", ""},
		{"loopback routable", "sysctl -qw net.ipv4.conf.zvm2.route_localnet=1", []string{"link zvm2", "route_localnet = 1, not 0"}, "", ""},
		{"IPv6 on a TAP", "sysctl -qw net.ipv6.conf.zvm0.disable_ipv6=0", []string{"link zvm0", "disable_ipv6 = 0, not 1"}, "", ""},
		{"forwarding off", "sysctl -qw net.ipv4.ip_forward=0", []string{"sysctl net/ipv4/ip_forward", "wanted 1, found 0"}, "", ""},
		{"forwarding of the external interface off", "sysctl -qw net.ipv4.conf.eth0.forwarding=0", []string{"sysctl net/ipv4/conf/eth0/forwarding", "wanted 1, found 0"}, "", ""},
		{"TAP that no VM has", "ip tuntap add zvm77 mode tap\nip link set zvm77 group 0x5a000001", []string{"link zvm77", "no VM has this slot"}, "", ""},
		{"TAP of a name that is not ours", "ip tuntap add mine mode tap\nip link set mine group 0x5a000001\nip link set mine up", []string{"link mine", "no VM has this slot"}, "", ""},
		{"bridge deleted", "ip link del zwrmd0", []string{"bridge zwrmd0", "found missing"}, "", ""},
		{"bridge down", "ip link set zwrmd0 down", []string{"bridge zwrmd0", "found down"}, "", ""},
		{"bridge without address", "ip address flush dev zwrmd0", []string{"bridge zwrmd0", "found inet none"}, "", ""},
		{"bridge without route", "ip route del 10.0.0.0/16", []string{"bridge zwrmd0", "without a route to 10.0.0.0/16"}, "", ""},
	}
}

// rules are about those of the dataplane iptables.
func rules() []drift {
	return []drift{
		{"private chain flushed", "iptables -F ZWRM-PRIVATE", []string{"iptables filter ZWRM-PRIVATE", "zwrm: app web", "missing"}, "iptables", ""},
		{"rule removed", "iptables -t nat -D ZWRM-NAT 1", []string{"iptables nat ZWRM-NAT", "missing"}, "iptables", ""},
		{"rule added", "iptables -I ZWRM-FORWARD 1 -j ACCEPT", []string{"iptables filter ZWRM-FORWARD rule 1", "-j ACCEPT"}, "iptables", ""},
		{"hook removed", "iptables -D FORWARD 1", []string{"iptables filter FORWARD rule 1", "-j ZWRM-FORWARD", "missing"}, "iptables", ""},
		{"hook not first", "iptables -I FORWARD 1 -i nosuch -j ACCEPT", []string{"iptables filter FORWARD rule 1", "as rule 2"}, "iptables", "iptables -D FORWARD -i nosuch -j ACCEPT"},
		{"chain renamed", "iptables -E ZWRM-INPUT ZWRM-GONE", []string{"iptables filter ZWRM-INPUT", "missing"}, "iptables", ""},
		{"rules of IPv6 flushed", "ip6tables -t raw -F ZWRM-RAW", []string{"ip6tables raw ZWRM-RAW", "missing"}, "ip6tables", ""},
		{"order changed", "iptables -D ZWRM-FORWARD 1\niptables -A ZWRM-FORWARD -m devgroup --dst-group 0x5a000000 -m comment --comment zwrm:unassigned -j DROP", []string{"iptables filter ZWRM-FORWARD"}, "iptables", ""},
		{"all chains deleted", "nft delete table ip filter", []string{"iptables filter ZWRM-FORWARD", "missing"}, "nft", ""},
		{"everything flushed", "nft flush ruleset", []string{"iptables raw ZWRM-RAW", "missing"}, "nft", ""},
	}
}

// TestRepair: zwrmd mends each change by itself, everything is as before, and an event
// says what it was, how long it lasted, and who did it where the kernel tells.
func TestRepair(t *testing.T) {
	t.Parallel()
	for _, dataplane := range dataplanes() {
		drifts := links()
		if dataplane == "iptables" {
			drifts = append(drifts, rules()...)
		}
		n := 0
		for some := range slices.Chunk(drifts, atOnce) {
			n++
			t.Run(fmt.Sprintf("%s %d", dataplane, n), func(t *testing.T) {
				t.Parallel()
				repair(t, settings(dataplane), some)
			})
		}
	}
}

func repair(t *testing.T, settings zwrmtest.Settings, drifts []drift) {
	h := zwrmtest.NewHost(t)
	h.Set(t, "net/ipv4/ip_forward", "1")
	d := h.Start(t, settings)
	for _, name := range []string{"one", "two", "three"} {
		d.Attach(t, name, "web")
	}
	d.Attach(t, "four", "db")
	before := h.Dump(t)
	for _, drift := range drifts {
		t.Run(drift.name, func(t *testing.T) {
			known := len(events(t, d))
			shell(t, h, drift.spoil)
			e := awaitEvent(t, d, known, "repair", drift.says...)
			shell(t, h, drift.mend)
			if e.TookMS <= 0 {
				t.Errorf("it took no time: %+v", e)
			}
			if !names(e.By, drift.by) {
				t.Errorf("by %+v, want %q", e.By, drift.by)
			}
			await(t, "everything as before", func() bool { return h.Dump(t) == before })
			if check := d.Zwrm(t, "network", "check"); check.Stdout != "in sync\n" {
				t.Errorf("after it is mended: %s%s", check.Stdout, check.Stderr)
			}
		})
	}
}

// names reports whether culprits have a program, or, of "process", a process at least.
func names(by []wire.Culprit, program string) bool {
	switch program {
	case "":
		return true
	case "process":
		return len(by) > 0 && by[0].PID > 0
	}
	return slices.ContainsFunc(by, func(c wire.Culprit) bool { return c.Program == program && c.PID > 0 })
}

// TestOwnedTable: nobody can change the rules of the dataplane nftables, so there is
// nothing to mend.
func TestOwnedTable(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, settings("nftables"))
	d.Attach(t, "one", "web")
	d.Attach(t, "two", "web")
	before := h.Run(t, "nft", "list", "table", "inet", "zwrm")
	for _, command := range []string{"delete table inet zwrm", "flush table inet zwrm", "flush chain inet zwrm forward", "add rule inet zwrm forward accept"} {
		if r := zwrmtest.Try(t, h.Namespace, "nft", strings.Fields(command)...); r.Status == 0 {
			t.Errorf("nft %s: nobody refuses", command)
		}
	}
	h.Run(t, "nft", "flush", "ruleset")
	// Behind this change all those before it have been looked at.
	known := len(events(t, d))
	shell(t, h, "ip link set zvm0 down")
	awaitEvent(t, d, known, "repair", "link zvm0")
	if got := h.Run(t, "nft", "list", "table", "inet", "zwrm"); got != before {
		t.Errorf("the table is\n%s\nand was\n%s", got, before)
	}
	for _, e := range events(t, d) {
		if e.Kind == "repair" && e.Object != "link zvm0" {
			t.Errorf("mended: %+v", e)
		}
	}
}

// TestNeighbours: what lets VMs pass in the rules of others comes back, with the dataplane
// nftables, and the one who took it away is named.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	shell(t, h, "iptables -P FORWARD DROP")
	d := h.Start(t, settings("nftables"))
	before := h.Dump(t)
	known := len(events(t, d))
	shell(t, h, "iptables -F FORWARD")
	if e := awaitEvent(t, d, known, "repair", "iptables filter FORWARD"); !names(e.By, "iptables") {
		t.Errorf("by %+v", e.By)
	}
	await(t, "everything as before", func() bool { return h.Dump(t) == before })
}

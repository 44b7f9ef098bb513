package flow_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"zwrm/internal/config"
	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// closedFlows are flows to and from web-0 of which each passes while it is open.
func closedFlows() []flow {
	var all []flow
	for _, f := range []flow{
		{from: "web-0", to: "web-1"}, {from: "web-1", to: "web-0"},
		{from: "web-0", to: "internet"}, {from: "host", to: "web-0"},
	} {
		for _, protocol := range []string{"icmp", "tcp/80", "udp/9000"} {
			f.protocol, f.state, f.private, f.pass, f.seenAs = protocol, fresh, "on", true, "-"
			all = append(all, f)
		}
	}
	return append(all,
		flow{from: "web-0", to: "own-gateway", protocol: "icmp", pass: true, seenAs: "-"},
		flow{from: "web-0", to: "own-gateway", protocol: "tcp/8080", pass: true, seenAs: "-"})
}

// tryClosed tries the flows, all of which must pass, or none.
func (w *world) tryClosed(t *testing.T, name string, pass bool) {
	t.Run(name, func(t *testing.T) {
		for _, f := range closedFlows() {
			t.Run(f.String(), func(t *testing.T) {
				t.Parallel()
				within := dropped
				if pass {
					within = answered
				}
				if _, err := w.try(t, f, within); (err == nil) != pass {
					t.Errorf("passes: %t, want %t (%v)", err == nil, pass, err)
				}
			})
		}
	})
}

// TestUnassigned: a TAP that no app has carries nothing, in no direction, even when
// no zwrmd lives.
func TestUnassigned(t *testing.T) { t.Parallel(); onBoth(t, testUnassigned) }

func testUnassigned(t *testing.T, dataplane config.Dataplane) {
	w := newWorld(t, dataplane, true, nil)
	own := regexp.MustCompile(`group (\S+)`).FindStringSubmatch(w.Run(t, "ip", "link", "show", "zvm0"))
	if own == nil {
		t.Fatal("zvm0 has no group")
	}
	w.tryClosed(t, "assigned", true)
	w.daemon.Kill() // it would mend the group
	w.Run(t, "ip", "link", "set", "zvm0", "group", "0x5a000000")
	w.tryClosed(t, "unassigned", false)
	w.sendOneWay(t, closedPort)
	// No rule of iptables sees ARP, which tells the guest nothing that it is not told.
	web := w.machines["web-0"]
	zwrmtest.Run(t, web.Namespace, "ip", "neigh", "flush", "dev", "eth0")
	if _, err := w.try(t, flow{from: "web-0", to: "own-gateway", protocol: "icmp"}, dropped); err == nil {
		t.Error("the gateway answers a ping")
	}
	if got := zwrmtest.Run(t, web.Namespace, "ip", "neigh", "show", "dev", "eth0"); !strings.Contains(got, "lladdr 02:5a:ff:ff:ff:fe") {
		t.Errorf("the gateway does not answer ARP any more, which docs/networking.md says it does: %s", got)
	}
	w.Run(t, "ip", "link", "set", "zvm0", "group", own[1])
	w.tryClosed(t, "assigned again", true)
	w.sendOneWay(t, openPort)
	for _, name := range oneWay() {
		capture := w.machines[name[1]].capture
		capture.Await(t, fmt.Sprintf("packet from %s at %s", name[0], name[1]), func(p zwrmtest.Packet) bool { return p.SrcPort == openPort })
		if got := capture.Find(func(p zwrmtest.Packet) bool { return p.SrcPort == closedPort }); len(got) > 0 {
			t.Errorf("while the TAP was unassigned, packets arrived from %s at %s: %v", name[0], name[1], got)
		}
	}
}

// The source ports of sendOneWay, before and after.
const closedPort, openPort = 7000, 7001

// oneWay are pairs of sender and receiver, of whom one is web-0. A flow that needs an
// answer does not show which of its two directions is closed.
func oneWay() [][2]string {
	return [][2]string{{"web-0", "web-1"}, {"web-1", "web-0"}, {"web-0", "internet"}, {"host", "web-0"}}
}

// sendOneWay sends a datagram from each sender to its receiver.
func (w *world) sendOneWay(t *testing.T, port uint16) {
	t.Helper()
	// One for each sender: a closed one may keep its port for a moment, where another
	// test starts a program.
	conns := map[string]*net.UDPConn{}
	for _, name := range oneWay() {
		from, to := w.machines[name[0]], w.machines[name[1]]
		if conns[name[0]] == nil {
			conns[name[0]] = listenUDP(t, from.Namespace, netip.AddrPortFrom(netip.IPv4Unspecified(), port))
		}
		_, _ = conns[name[0]].WriteTo([]byte("?"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.address, 9000))) // fails where OUTPUT drops
	}
}

// strayTAP is a TAP that somebody made by hand, with a name like ours.
const strayTAP = "zvm9999"

// stray adds a machine behind a stray TAP.
func (w *world) stray(t *testing.T) {
	t.Helper()
	w.Run(t, "ip", "tuntap", "add", strayTAP, "mode", "tap", "vnet_hdr")
	w.Run(t, "ip", "address", "add", "198.18.0.1/30", "dev", strayTAP) // RFC 2544
	w.Run(t, "ip", "link", "set", strayTAP, "up")
	w.Outside.Route(t, netip.MustParsePrefix("198.18.0.0/30"), netip.MustParseAddr(zwrmtest.HostAddress))
	guest := w.Guest(t, wire.VM{
		Name: "stray", TAP: strayTAP, MAC: "02:5a:c6:12:00:02", Prefix: "198.18.0.0/30", Gateway: "198.18.0.1", GuestIP: "198.18.0.2",
	})
	w.add(t, "stray", guest.Namespace, guest.VM.GuestIP)
	w.machines["stray-gateway"] = machine{address: guest.Gateway()}
}

// TestStrayTAP: a TAP with a name of ours that is in no group of ours carries
// nothing. Without the rules it would.
func TestStrayTAP(t *testing.T) { t.Parallel(); onBoth(t, testStrayTAP) }

func testStrayTAP(t *testing.T, dataplane config.Dataplane) {
	w := newWorld(t, dataplane, true, nil)
	w.stray(t)
	all := []flow{
		{from: "stray", to: "web-0"}, {from: "web-0", to: "stray"}, {from: "stray", to: "internet"},
		{from: "internet", to: "stray"}, {from: "stray", to: "own-gateway"}, {from: "stray", to: "lan"},
		{from: "host", to: "stray"},
	}
	try := func(name string, pass bool) {
		t.Run(name, func(t *testing.T) {
			for _, f := range all {
				for _, protocol := range []string{"icmp", "tcp/80", "udp/9000"} {
					f := f
					f.protocol = protocol
					t.Run(f.String(), func(t *testing.T) {
						t.Parallel()
						if !pass {
							w.mustDrop(t, f)
						} else if _, err := w.try(t, f, answered); err != nil {
							t.Errorf("does not pass even without rules: %v", err)
						}
					})
				}
			}
		})
	}
	try("with rules", false)
	w.removeRules(t)
	try("without rules", true)
}

// TestDetached: after detach nothing of the machine gets out or in, its connections
// are forgotten, and nothing is left of its TAP.
func TestDetached(t *testing.T) { t.Parallel(); onBoth(t, testDetached) }

func testDetached(t *testing.T, dataplane config.Dataplane) {
	w := newWorld(t, dataplane, true, nil)
	web, internet := w.machines["web-0"], w.machines["internet"]
	outside := netip.MustParseAddr(zwrmtest.OutsideAddress)
	conn := listenUDP(t, web.Namespace, netip.AddrPortFrom(web.address, 4000))
	peer := listenUDP(t, w.Outside, netip.AddrPortFrom(outside, 4001))
	send(t, conn, "before", peer.LocalAddr())
	from := receive(t, peer, "before")
	w.daemon.Must(t, "detach", "web-0")

	// Were the connection known still, this would be sent on to the guest's address,
	// which leads back to the internet now. It is the host's own, who has no such port.
	send(t, peer, "after", from)
	const unreachable = 3
	w.expectNews(t, internet, unreachable)
	tries := []flow{{from: "web-1", to: "web-0", protocol: "icmp"}, {from: "web-1", to: "web-0", protocol: "tcp/80"}}
	for _, f := range closedFlows() {
		if f.from == "web-0" {
			tries = append(tries, f)
		}
	}
	t.Run("flows", func(t *testing.T) {
		for _, f := range tries {
			t.Run(f.String(), func(t *testing.T) {
				t.Parallel()
				if _, err := w.try(t, f, dropped); err == nil {
					t.Error("passes")
				}
			})
		}
	})
	if got := internet.capture.Find(func(p zwrmtest.Packet) bool { return p.Dst == web.address }); len(got) > 0 {
		t.Errorf("packets to the address that no VM has now got out: %v", got)
	}
	if links := w.Run(t, "ip", "-o", "link"); strings.Contains(links, "zvm0:") {
		t.Errorf("zvm0 is still there:\n%s", links)
	}
}

// TestRelated: what a connection of a guest brings about comes back to it, here the
// news that nobody listens. The same news unasked does not.
func TestRelated(t *testing.T) { t.Parallel(); onBoth(t, testRelated) }

func testRelated(t *testing.T, dataplane config.Dataplane) {
	w := newWorld(t, dataplane, false, nil)
	web := w.machines["web-0"]
	outside := netip.MustParseAddr(zwrmtest.OutsideAddress)
	const unreachable, port = 3, 3
	var raw net.Conn
	var err error
	w.Outside.Do(t, func() { raw, err = net.Dial("ip4:1", web.address.String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	news := append([]byte{unreachable, port, 0, 0, 0, 0, 0, 0},
		udp4(netip.AddrPortFrom(web.address, 4000), netip.AddrPortFrom(outside, 9))...)
	binary.BigEndian.PutUint16(news[2:], ^sum(0, news))
	if _, err := raw.Write(news); err != nil {
		t.Fatal(err)
	}
	_, err = zwrmtest.Ask(t, web.Namespace, "udp", netip.AddrPortFrom(outside, 9), answered)
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a closed port of the internet: got %v, want that it refuses", err)
	}
	if got := w.expectNews(t, web, unreachable); got != 1 {
		t.Errorf("%d messages of an unreachable port, want 1", got)
	}
}

// expectNews waits until the machine has got an ICMP message of the type, and
// returns how many there are.
func (w *world) expectNews(t *testing.T, m machine, icmpType uint16) int {
	t.Helper()
	is := func(p zwrmtest.Packet) bool {
		return p.Protocol == zwrmtest.ICMP && p.DstPort == icmpType && p.Dst == m.address
	}
	m.capture.Await(t, "ICMP message", is)
	return len(m.capture.Find(is))
}

// TestEstablished: a connection that the guest began goes on in both directions,
// and its end point cannot be used for another one from outside.
func TestEstablished(t *testing.T) { t.Parallel(); onBoth(t, testEstablished) }

func testEstablished(t *testing.T, dataplane config.Dataplane) {
	w := newWorld(t, dataplane, false, nil)
	web := w.machines["web-0"]
	outside := netip.MustParseAddr(zwrmtest.OutsideAddress)
	conn := listenUDP(t, web.Namespace, netip.AddrPortFrom(web.address, 4000))
	peer := listenUDP(t, w.Outside, netip.AddrPortFrom(outside, 4001))
	send(t, conn, "first", peer.LocalAddr())
	from := receive(t, peer, "first")
	for _, word := range []string{"second", "third"} {
		send(t, peer, word, from)
		receive(t, conn, word)
	}
	// Another port of the same machine knows the way, and is no part of it.
	stranger := listenUDP(t, w.Outside, netip.AddrPortFrom(outside, 4002))
	send(t, stranger, "unasked", from)
	send(t, stranger, "unasked", conn.LocalAddr())
	send(t, peer, "last", from)
	receive(t, conn, "last") // "unasked" would have come before it
}

// deadline is for what must arrive.
func deadline() time.Time { return time.Now().Add(answered) }

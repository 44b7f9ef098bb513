package flow_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"zwrm/internal/config"
	"zwrm/internal/ipam"
	"zwrm/test/zwrmtest"
)

// The addresses of TestIPv6 (RFC 3849).
const (
	outside6 = "2001:db8:1::2"
	uplink6  = "2001:db8:1::1"
	gateway6 = "2001:db8:2::1"
	guest6   = "2001:db8:2::2"
)

// TestIPv6: a host that routes IPv6 routes none from or to a guest, even if
// somebody gave the guest's TAP IPv6 and an address. Without the rules it would.
func TestIPv6(t *testing.T) { t.Parallel(); onBoth(t, testIPv6) }

func testIPv6(t *testing.T, dataplane config.Dataplane) {
	w := newWorld(t, dataplane, true, nil)
	guest := w.guest(t, "web-2")
	if got := w.Sysctl(t, "net/ipv6/conf/"+guest.VM.TAP+"/disable_ipv6"); got != "1" {
		t.Errorf("disable_ipv6 of the TAP is %s, want 1", got)
	}
	w.daemon.Kill() // it would mend what follows
	w.giveIPv6(t, guest)
	outside := zwrmtest.NewCapture(t, w.Outside)
	frames := guest.Capture()
	service := listenUDP(t, w.Namespace, addrPort("::", 9006)) // of the host
	mac := ipam.GatewayMAC()
	mac[5]++ // somebody's
	exchange := func(port uint16) {
		t.Helper()
		for _, to := range append(hosts6(), outside6) {
			packet := udp6(addrPort(guest6, port), addrPort(to, 9006))
			if err := guest.Send(ethernet(mac, etherTypeIPv6, packet)); err != nil {
				t.Fatal(err)
			}
		}
		conn := listenUDP(t, w.Namespace, addrPort(gateway6, 0))
		to := net.UDPAddrFromAddrPort(addrPort(guest6, port))
		_, _ = conn.WriteTo([]byte("?"), to) // a rule that drops is an error here
		send(t, listenUDP(t, w.Outside, addrPort(outside6, 0)), "?", to)
	}
	exchange(4000)
	w.passIPv4(t)
	if got := outside.Find(func(p zwrmtest.Packet) bool { return p.Src == netip.MustParseAddr(guest6) }); len(got) > 0 {
		t.Errorf("IPv6 of a guest got out: %v", got)
	}
	for len(frames) > 0 {
		if frame := <-frames; isFor(frame, 4000) {
			t.Errorf("IPv6 got to a guest: % x", frame)
		}
	}
	if from, ok := heard(t, service, dropped); ok {
		t.Errorf("IPv6 of a guest got to a service of the host, from %s", from)
	}
	w.removeRules(t)
	exchange(4001)
	outside.Await(t, "IPv6 of a guest without rules", func(p zwrmtest.Packet) bool { return p.SrcPort == 4001 })
	for _, address := range hosts6() {
		if from, ok := heard(t, service, answered); !ok || from.Port() != 4001 {
			t.Errorf("without rules, a service of the host heard from %s, and not from the guest for each address such as %s", from, address)
		}
	}
	for _, from := range []string{"the host", "outside"} {
		if !arrives(frames, 4001) {
			t.Errorf("without rules, no IPv6 from %s got to a guest either", from)
		}
	}
}

// hosts6 are addresses of the host: that of the TAP, that of eth0, and all nodes.
func hosts6() []string { return []string{gateway6, uplink6, "ff02::1"} }

// heard waits for a datagram, and returns whom it comes from.
func heard(t *testing.T, conn *net.UDPConn, within time.Duration) (netip.AddrPort, bool) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	_, from, err := conn.ReadFromUDPAddrPort(make([]byte, 64))
	return from, err == nil
}

// arrives waits for a frame of IPv6 to a port.
func arrives(frames <-chan []byte, port uint16) bool {
	timeout := time.After(answered)
	for {
		select {
		case frame := <-frames:
			if isFor(frame, port) {
				return true
			}
		case <-timeout:
			return false
		}
	}
}

// TestNoIPv6: a host with IPv6 says nothing in it to a guest: no router
// advertisement, no neighbour solicitation, no multicast listener report.
func TestNoIPv6(t *testing.T) { t.Parallel(); onBoth(t, testNoIPv6) }

func testNoIPv6(t *testing.T, dataplane config.Dataplane) {
	w := newWorld(t, dataplane, true, nil)
	w.Set(t, "net/ipv6/conf/all/forwarding", "1")
	guest := w.guest(t, "web-2")
	frames := guest.Capture()
	solicit := udp6(addrPort("fe80::1", 4000), addrPort("ff02::1", 9000))
	if err := guest.Send(ethernet(ipam.MAC{0x33, 0x33, 0, 0, 0, 1}, etherTypeIPv6, solicit)); err != nil {
		t.Fatal(err)
	}
	if err := guest.Ping(guest.Gateway()); err != nil {
		t.Fatal(err)
	}
	for len(frames) > 0 {
		if frame := <-frames; isIPv6(frame) {
			t.Errorf("the host sent IPv6: % x", frame)
		}
	}
}

func isIPv6(frame []byte) bool { return binary.BigEndian.Uint16(frame[12:]) == etherTypeIPv6 }

// isFor reports whether a frame is of IPv6 and UDP and for a port.
func isFor(frame []byte, port uint16) bool {
	const ports = 14 + 40
	return isIPv6(frame) && len(frame) >= ports+4 && frame[14+6] == protocolUDP && binary.BigEndian.Uint16(frame[ports+2:]) == port
}

// giveIPv6 makes the host route IPv6 between the internet and a guest.
func (w *world) giveIPv6(t *testing.T, guest *zwrmtest.Guest) {
	t.Helper()
	tap := guest.VM.TAP
	w.Set(t, "net/ipv6/conf/all/forwarding", "1")
	for _, link := range []string{tap, zwrmtest.Uplink} {
		w.Set(t, "net/ipv6/conf/"+link+"/disable_ipv6", "0")
	}
	w.Outside.Set(t, "net/ipv6/conf/"+zwrmtest.Uplink+"/disable_ipv6", "0")
	for _, command := range []string{
		"ip address add " + gateway6 + "/64 dev " + tap + " nodad",
		"ip neighbour add " + guest6 + " lladdr " + guest.VM.MAC + " dev " + tap + " nud permanent",
		"ip address add " + uplink6 + "/64 dev eth0 nodad",
	} {
		words := strings.Fields(command)
		w.Run(t, words[0], words[1:]...)
	}
	zwrmtest.Run(t, w.Outside, "ip", "address", "add", outside6+"/64", "dev", "eth0", "nodad")
	zwrmtest.Run(t, w.Outside, "ip", "route", "add", "2001:db8:2::/64", "via", uplink6)
}

// passIPv4 returns when the guests and the internet have exchanged something: what
// was sent before has arrived then, too, or never will.
func (w *world) passIPv4(t *testing.T) {
	t.Helper()
	for _, f := range []flow{{from: "web-2", to: "internet", protocol: "icmp"}, {from: "host", to: "web-2", protocol: "icmp"}} {
		if _, err := w.try(t, f, answered); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
	}
}

func addrPort(address string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(address), port)
}

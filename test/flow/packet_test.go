package flow_test

import (
	"net"
	"net/netip"
	"testing"

	"zwrm/internal/host/nstest"
	"zwrm/internal/ipam"
)

// listenUDP opens a UDP socket in a namespace until the test ends.
func listenUDP(t *testing.T, ns *nstest.Namespace, address netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	var err error
	ns.Do(t, func() { conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(address)) })
	if err != nil {
		t.Fatalf("listen on %s: %v", address, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// dialUDP opens a UDP socket that is told of ICMP errors, until the test ends.
func dialUDP(t *testing.T, ns *nstest.Namespace, from, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	var err error
	ns.Do(t, func() { conn, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to)) })
	if err != nil {
		t.Fatalf("connect %s with %s: %v", from, to, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func send(t *testing.T, conn *net.UDPConn, text string, to net.Addr) {
	t.Helper()
	if _, err := conn.WriteTo([]byte(text), to); err != nil {
		t.Fatalf("send to %s: %v", to, err)
	}
}

// receive waits for the next datagram, which must say what is wanted, and returns
// whom it comes from.
func receive(t *testing.T, conn *net.UDPConn, want string) net.Addr {
	t.Helper()
	if err := conn.SetReadDeadline(deadline()); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, from, err := conn.ReadFrom(buf)
	if err != nil || string(buf[:n]) != want {
		t.Fatalf("received %q, %v; want %q", buf[:n], err, want)
	}
	return from
}

// ethernet returns a frame from a guest to its gateway.
func ethernet(source ipam.MAC, etherType uint16, packet []byte) []byte {
	return frame{ipam.GatewayMAC(), source, etherType, packet}.bytes()
}

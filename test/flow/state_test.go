package flow_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"zwrm/test/zwrmtest"
)

// tryEstablished sends a later packet of a connection that the target began.
func (w *world) tryEstablished(t *testing.T, f flow, within time.Duration) (seen netip.Addr, err error) {
	t.Helper()
	from, to, port := w.machines[f.from], w.target(f), w.freePort()
	conn := listenUDP(t, to.Namespace, netip.AddrPortFrom(to.address, port))
	peer := listenUDP(t, from.Namespace, netip.AddrPortFrom(netip.IPv4Unspecified(), port))
	send(t, conn, "first", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.address, port)))
	back := receive(t, peer, "first")
	send(t, peer, "later", back)
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	var buf [64]byte
	_, source, err := conn.ReadFromUDPAddrPort(buf[:])
	return source.Addr(), err
}

// tryRelated sends an ICMP error about a connection of the target: with the sender if
// the target is its gateway, with the internet otherwise. Those of a VM are
// masqueraded, so that the error goes to the host's address first.
func (w *world) tryRelated(t *testing.T, f flow, within time.Duration) error {
	t.Helper()
	from, to, port := w.machines[f.from], w.target(f), w.freePort()
	with := w.machines["internet"]
	if f.to == "own-gateway" {
		with = from
	}
	known := to.address
	if to.capture != nil {
		known = netip.MustParseAddr(zwrmtest.HostAddress)
	}
	peer := listenUDP(t, with.Namespace, netip.AddrPortFrom(with.address, port))
	conn := dialUDP(t, to.Namespace, netip.AddrPortFrom(to.address, port), netip.AddrPortFrom(with.address, port))
	if _, err := conn.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	send(t, peer, "pong", receive(t, peer, "ping"))
	var buf [64]byte
	if _, err := conn.Read(buf[:]); err != nil {
		t.Fatal(err)
	}

	const unreachable, portUnreachable = 3, 3
	var raw net.Conn
	var err error
	from.Do(t, func() { raw, err = net.Dial("ip4:1", known.String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	about := udp4(netip.AddrPortFrom(known, port), netip.AddrPortFrom(with.address, port))
	if _, err := raw.Write(news(unreachable, portUnreachable, 0, about)); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	if _, err = conn.Read(buf[:]); errors.Is(err, syscall.ECONNREFUSED) {
		return nil // the target believes it
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("wait for the error: %v", err)
	}
	return err
}

// freePort returns a port that no other flow uses, of those that masquerading keeps.
func (w *world) freePort() uint16 { return uint16(10000 + w.ports.Add(1)) }

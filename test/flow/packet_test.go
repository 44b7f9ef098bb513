package flow_test

import (
	"encoding/binary"
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

const (
	etherTypeIPv4 = 0x0800
	etherTypeIPv6 = 0x86dd
	protocolUDP   = 17
)

// ethernet returns a frame from a guest to its gateway.
func ethernet(source ipam.MAC, etherType uint16, packet []byte) []byte {
	gateway := ipam.GatewayMAC()
	frame := append(gateway[:], source[:]...)
	frame = binary.BigEndian.AppendUint16(frame, etherType)
	return append(frame, packet...)
}

// udp4 returns an IPv4 packet with a UDP datagram without content. A UDP checksum of
// 0 means none (RFC 768).
func udp4(source, dest netip.AddrPort) []byte {
	packet := make([]byte, 28)
	packet[0] = 0x45
	binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
	packet[8], packet[9] = 64, protocolUDP
	copy(packet[12:], source.Addr().AsSlice())
	copy(packet[16:], dest.Addr().AsSlice())
	binary.BigEndian.PutUint16(packet[10:], ^sum(0, packet[:20]))
	putUDP(packet[20:], source, dest)
	return packet
}

// udp6 returns an IPv6 packet with a UDP datagram without content.
func udp6(source, dest netip.AddrPort) []byte {
	packet := make([]byte, 48)
	packet[0] = 0x60
	binary.BigEndian.PutUint16(packet[4:], 8)
	packet[6], packet[7] = protocolUDP, 64
	copy(packet[8:], source.Addr().AsSlice())
	copy(packet[24:], dest.Addr().AsSlice())
	datagram := packet[40:]
	putUDP(datagram, source, dest)
	// The checksum covers the addresses, length and protocol too (RFC 8200 section 8.1).
	pseudo := sum(8+protocolUDP, packet[8:40])
	binary.BigEndian.PutUint16(datagram[6:], ^sum(uint32(pseudo), datagram))
	return packet
}

func putUDP(datagram []byte, source, dest netip.AddrPort) {
	binary.BigEndian.PutUint16(datagram, source.Port())
	binary.BigEndian.PutUint16(datagram[2:], dest.Port())
	binary.BigEndian.PutUint16(datagram[4:], 8)
}

// sum is the one's complement sum of RFC 1071, begun with a value.
func sum(begin uint32, b []byte) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		begin += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for begin > 0xffff {
		begin = begin>>16 + begin&0xffff
	}
	return uint16(begin)
}

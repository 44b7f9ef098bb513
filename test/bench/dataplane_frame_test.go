package bench_test

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"zwrm/internal/ipam"
)

const (
	virtioHeader   = 10 // struct virtio_net_hdr (linux/virtio_net.h); all zero: checksums are in place
	ethernetHeader = 14
	ipHeader       = 20 // RFC 791
	headers        = virtioHeader + ethernetHeader + ipHeader
	payload        = 64 // bytes of a UDP datagram
)

// Flags of TCP (RFC 9293).
const (
	fin = 0x01
	syn = 0x02
	ack = 0x10
)

// udp returns the frame in which a guest sends a datagram, as it writes it to its TAP.
func udp(from, to netip.AddrPort) []byte {
	b := make([]byte, 8+payload) // RFC 768
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return frame(from, to, unix.IPPROTO_UDP, b, 6)
}

// tcp returns the frame in which a guest sends a segment without content.
func tcp(from, to netip.AddrPort, flags byte, seq, acked uint32) []byte {
	b := make([]byte, 20) // RFC 9293
	binary.BigEndian.PutUint32(b[4:], seq)
	if flags&ack != 0 {
		binary.BigEndian.PutUint32(b[8:], acked)
	}
	b[12], b[13] = 5<<4, flags
	binary.BigEndian.PutUint16(b[14:], 64000)
	return frame(from, to, unix.IPPROTO_TCP, b, 16)
}

// frame puts ports and checksum into a datagram or segment, and headers before it.
func frame(from, to netip.AddrPort, protocol byte, transport []byte, checksumAt int) []byte {
	b := make([]byte, headers, headers+len(transport))
	gateway, guest := ipam.GatewayMAC(), ipam.MACOf(from.Addr())
	ethernet := b[virtioHeader:]
	copy(ethernet, gateway[:])
	copy(ethernet[6:], guest[:])
	binary.BigEndian.PutUint16(ethernet[12:], unix.ETH_P_IP)
	ip := ethernet[ethernetHeader:]
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], uint16(ipHeader+len(transport)))
	ip[6], ip[8], ip[9] = 0x40, 64, protocol // don't fragment; 64 hops
	copy(ip[12:], from.Addr().AsSlice())
	copy(ip[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip))

	binary.BigEndian.PutUint16(transport, from.Port())
	binary.BigEndian.PutUint16(transport[2:], to.Port())
	pseudo := sum(uint32(protocol)+uint32(len(transport)), ip[12:])
	binary.BigEndian.PutUint16(transport[checksumAt:], ^sum(uint32(pseudo), transport))
	return append(b, transport...)
}

// sum is the one's complement sum of RFC 1071, begun with a value, of an even number
// of bytes.
func sum(begin uint32, b []byte) uint16 {
	for i := 0; i < len(b); i += 2 {
		begin += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for begin > 0xffff {
		begin = begin>>16 + begin&0xffff
	}
	return uint16(begin)
}

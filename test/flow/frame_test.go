package flow_test

import (
	"encoding/binary"
	"net/netip"

	"zwrm/internal/ipam"
)

const (
	etherTypeIPv4 = 0x0800
	etherTypeARP  = 0x0806
	etherTypeVLAN = 0x8100 // IEEE 802.1Q
	etherTypeQinQ = 0x88a8 // IEEE 802.1ad
	etherTypeIPv6 = 0x86dd

	protocolICMP = 1
	protocolIPIP = 4
	protocolTCP  = 6
	protocolUDP  = 17
	protocol6in4 = 41
	protocolGRE  = 47
)

// frame is an Ethernet frame.
type frame struct {
	dest, source ipam.MAC
	etherType    uint16
	payload      []byte
}

func (f frame) bytes() []byte {
	b := append(f.dest[:], f.source[:]...)
	return append(binary.BigEndian.AppendUint16(b, f.etherType), f.payload...)
}

// tagged returns the frame with a VLAN tag in front of what it carries.
func (f frame) tagged(etherType, id uint16) frame {
	tag := binary.BigEndian.AppendUint16(nil, id)
	f.payload = append(binary.BigEndian.AppendUint16(tag, f.etherType), f.payload...)
	f.etherType = etherType
	return f
}

func broadcastMAC() ipam.MAC { return ipam.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

// ip4 is an IPv4 packet (RFC 791).
type ip4 struct {
	source, dest netip.Addr
	protocol     byte
	options      []byte // a multiple of 4
	id           uint16
	fragment     uint16 // flags and offset
	payload      []byte
}

const moreFragments = 0x2000

func (p ip4) bytes() []byte {
	header := 20 + len(p.options)
	b := make([]byte, header, header+len(p.payload))
	b[0] = 0x40 | byte(header/4)
	binary.BigEndian.PutUint16(b[2:], uint16(header+len(p.payload)))
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], p.fragment)
	b[8], b[9] = 64, p.protocol
	copy(b[12:], p.source.AsSlice())
	copy(b[16:], p.dest.AsSlice())
	copy(b[20:], p.options)
	checkIP(b)
	return append(b, p.payload...)
}

// checkIP writes the checksum of an IPv4 header.
func checkIP(b []byte) {
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^sum(0, b[:4*int(b[0]&0xf)]))
}

// udp4 returns an IPv4 packet with a UDP datagram without content. A UDP checksum of
// 0 means none (RFC 768).
func udp4(source, dest netip.AddrPort) []byte {
	return ip4{source: source.Addr(), dest: dest.Addr(), protocol: protocolUDP, payload: datagram(source.Port(), dest.Port(), 0)}.bytes()
}

// datagram returns a UDP datagram of n bytes of content.
func datagram(source, dest uint16, n int) []byte {
	b := make([]byte, 8+n)
	binary.BigEndian.PutUint16(b, source)
	binary.BigEndian.PutUint16(b[2:], dest)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return b
}

// news returns an ICMP message about a packet (RFC 792).
func news(icmpType, code byte, rest uint32, about []byte) []byte {
	b := append(binary.BigEndian.AppendUint32([]byte{icmpType, code, 0, 0}, rest), about...)
	binary.BigEndian.PutUint16(b[2:], ^sum(0, b))
	return b
}

// udp6 returns an IPv6 packet with a UDP datagram without content.
func udp6(source, dest netip.AddrPort) []byte {
	return ip6(source.Addr(), dest.Addr(), protocolUDP, 6, datagram(source.Port(), dest.Port(), 0))
}

// ip6 returns an IPv6 packet. The checksum of its payload stands at the offset and
// covers the addresses, length and protocol, too (RFC 8200 section 8.1).
func ip6(source, dest netip.Addr, next byte, checksumAt int, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = next, 255 // of neighbour discovery (RFC 4861 section 4)
	copy(b[8:], source.AsSlice())
	copy(b[24:], dest.AsSlice())
	pseudo := sum(uint32(len(payload))+uint32(next), b[8:40])
	binary.BigEndian.PutUint16(payload[checksumAt:], ^sum(uint32(pseudo), payload))
	return append(b, payload...)
}

// arp is an ARP message (RFC 826).
type arp struct {
	operation              uint16 // 1: request, 2: reply
	senderMAC, targetMAC   ipam.MAC
	senderAddr, targetAddr netip.Addr
}

func (a arp) bytes() []byte {
	b := []byte{0, 1, 8, 0, 6, 4}
	b = binary.BigEndian.AppendUint16(b, a.operation)
	b = append(append(b, a.senderMAC[:]...), a.senderAddr.AsSlice()...)
	return append(append(b, a.targetMAC[:]...), a.targetAddr.AsSlice()...)
}

// sum is the one's complement sum of RFC 1071, begun with a value.
func sum(begin uint32, b []byte) uint16 {
	for i := 0; i < len(b); i += 2 {
		begin += uint32(b[i]) << 8
		if i+1 < len(b) {
			begin += uint32(b[i+1])
		}
	}
	for begin > 0xffff {
		begin = begin>>16 + begin&0xffff
	}
	return uint16(begin)
}

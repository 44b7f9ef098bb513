package trace

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// Packet is the first packet of a connection: an ICMP echo request, an empty UDP
// datagram, or what opens a TCP connection. All addresses are IPv4.
type Packet struct {
	Source, Dest netip.Addr
	Service      model.Service // destination port; zero: an ICMP echo request
	Port         uint16        // source port, or what tells one ping from another
	ID           uint16        // of the IPv4 header; 0 would be replaced on its way out (raw(7))
}

// NewPacket returns a packet that differs from others between the same ends, so that
// it is of no connection that the kernel knows.
func NewPacket(source, dest netip.Addr, service model.Service) Packet {
	const first = 49152 // of the ports that no service has (RFC 6335)
	return Packet{
		Source: source, Dest: dest, Service: service,
		Port: first + uint16(rand.N(1<<16-first)), ID: uint16(1 + rand.N(1<<16-1)),
	}
}

// Frame returns the packet in an Ethernet frame. A VM sends from its own address to
// that of its gateway; what comes from elsewhere is sent to the link's own.
func (p Packet) Frame(from, to ipam.MAC) []byte {
	return slices.Concat(to[:], from[:], []byte{0x08, 0x00}, p.Bytes())
}

// Bytes returns the packet with its IPv4 header (RFC 791).
func (p Packet) Bytes() []byte {
	protocol, payload := p.payload()
	header := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0} // don't fragment; 64 hops
	binary.BigEndian.PutUint16(header[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(header[4:], p.ID)
	header = slices.Concat(header, p.Source.AsSlice(), p.Dest.AsSlice())
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	return append(header, payload...)
}

// payload returns what is behind the IPv4 header, and the number of its protocol.
func (p Packet) payload() (protocol byte, payload []byte) {
	put := binary.BigEndian.PutUint16
	switch p.Service.Protocol {
	case model.TCP: // RFC 9293
		payload = []byte{12: 5 << 4, 13: 0x02, 14: 0xfa, 15: 0xf0, 19: 0} // 5 words; SYN; window of 64240
		put(payload[4:], p.ID)                                            // the sequence number may be any
		protocol = unix.IPPROTO_TCP
	case model.UDP: // RFC 768
		payload = []byte{5: 8, 7: 0} // 8 bytes long
		protocol = unix.IPPROTO_UDP
	default: // RFC 792
		payload = []byte{0: 8, 7: 1} // echo request, the first
		put(payload[4:], p.Port)
		put(payload[2:], checksum(payload))
		return unix.IPPROTO_ICMP, payload
	}
	put(payload, p.Port)
	put(payload[2:], p.Service.Port)
	pseudo := slices.Concat(p.Source.AsSlice(), p.Dest.AsSlice(), []byte{0, protocol, 0, byte(len(payload))})
	sum := checksum(append(pseudo, payload...))
	if protocol == unix.IPPROTO_TCP {
		put(payload[16:], sum)
		return protocol, payload
	}
	if sum == 0 { // in UDP, that is for no checksum
		sum = 0xffff
	}
	put(payload[6:], sum)
	return protocol, payload
}

// checksum is the one's complement of the one's complement sum (RFC 1071) of an even
// number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

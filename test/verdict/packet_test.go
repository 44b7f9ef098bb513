package verdict_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"zwrm/internal/firewall"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// packet is one packet and what the host finds out about it.
type packet struct {
	firewall.Flow
	in, out string // devices; empty: the host itself
	dest    netip.Addr
	source  netip.Addr
	mac     ipam.MAC // of the sender
	to      ipam.MAC
	id      uint16
	bytes   []byte // with its IP header
	what    string
}

func (p packet) frame() []byte {
	etherType := []byte{0x08, 0x00}
	if p.Family == firewall.IPv6 {
		etherType = []byte{0x86, 0xdd}
	}
	return slices.Concat(p.to[:], p.mac[:], etherType, p.bytes)
}

func (p packet) String() string {
	in, out := p.in, p.out
	if in == "" {
		in = "the host"
	}
	if out == "" {
		out = "the host"
	}
	return fmt.Sprintf("%s from %s (%s) by %s to %s by %s, service %q, %v", p.what, p.source, p.mac, in, p.dest, out, p.Service, p.Is)
}

// connection is one that the host knows.
type connection struct{ from, to netip.AddrPort }

// random makes packets and rules.
type random struct {
	*rand.Rand
	site        *site
	connections []connection
	id          uint16
}

func pick[T any](r *random, from ...T) T { return from[r.IntN(len(from))] }

// chance is true in n of 100.
func (r *random) chance(n int) bool { return r.IntN(100) < n }

func services() []model.Service {
	return []model.Service{{Protocol: model.TCP, Port: 80}, {Protocol: model.UDP, Port: 53}, {Protocol: model.UDP, Port: 9000}}
}

// packet makes one of any kind.
func (r *random) packet() packet {
	switch n := r.IntN(100); {
	case n < 10:
		return r.ipv6()
	case n < 30 && len(r.connections) > 0:
		return r.known()
	}
	from, to := pick(r, append(r.site.wires, nil)...), r.dest()
	if _, local := r.site.owner(to); from == nil && local { // to itself: no device of ours is on the way
		from = r.site.wires[0]
	}
	source := r.source(from, to)
	p := packet{what: "ping"}
	if r.chance(70) {
		p.Service = pick(r, services()...)
		p.what = p.Service.String()
	}
	return r.finish(p, from, source, to, payload(p.Service, 1100+r.id)) // a connection of its own
}

// dest returns an address that a packet may go to.
func (r *random) dest() netip.Addr {
	w := pick(r, r.site.wires...)
	return pick(r, w.peer, w.peer, w.peer, w.address.Addr(),
		netip.MustParseAddr("172.16.9.2"), netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("203.0.113.7"))
}

// source returns the sender's address, forged in some.
func (r *random) source(from *wire, to netip.Addr) netip.Addr {
	switch {
	case from == nil: // the host's own, that of the device it leaves by
		out, _ := r.site.owner(to)
		return out.address.Addr()
	case r.chance(25):
		w := pick(r, r.site.wires...)
		return pick(r, w.peer, w.address.Addr(), netip.MustParseAddr("203.0.113.8"), netip.MustParseAddr("172.16.9.3"))
	}
	return from.peer
}

// finish puts the packet together and notes what the host finds out about it.
func (r *random) finish(p packet, from *wire, source, dest netip.Addr, content []byte) packet {
	r.id++
	p.Family, p.Source, p.Dest, p.source, p.dest, p.id = firewall.IPv4, source, dest, source, dest, r.id
	out, local := r.site.owner(dest)
	if !local {
		p.out, p.To = out.Name, out.Device
	}
	var options []byte
	if from != nil {
		p.in, p.From, p.mac, p.to = from.Name, from.Device, from.mac(), hostMAC()
		back, self := r.site.owner(source)
		if back != from || self {
			p.Is = append(p.Is, firewall.Misrouted)
		}
		if r.chance(15) {
			p.mac = pick(r, ipam.MAC{0x02, 0x5a, 1, 2, 3, 4}, ipam.MAC{0x02, 0x5b, p.mac[2], p.mac[3], p.mac[4], p.mac[5]}, hostMAC())
		}
		if p.mac != ipam.MACOf(source) {
			p.Is = append(p.Is, firewall.ForeignMAC)
		}
		if r.chance(10) {
			options = []byte{1, 1, 1, 1}
			p.Is = append(p.Is, firewall.Options)
		}
		if local && r.chance(10) { // the kernel forwards none
			p.to = ipam.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
			p.Is = append(p.Is, firewall.NotUnicast)
		}
		if local && out == from {
			p.Is = append(p.Is, firewall.ToGateway)
			if p.what == "ping" {
				p.Is = append(p.Is, firewall.EchoGateway)
			}
		}
	}
	p.bytes = ip4(source, dest, protocolOf(p), p.id, options, content)
	if p.Service.Protocol == model.TCP && r.chance(15) {
		p.bytes[20+len(options)+16]++ // the checksum
		p.Is = append(p.Is, firewall.Invalid)
	}
	return p
}

func protocolOf(p packet) byte {
	switch p.Service.Protocol {
	case model.TCP:
		return unix.IPPROTO_TCP
	case model.UDP:
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_ICMP
}

// connect has the kernel know connections that both sides have used. The rules that
// stand let everything pass, and have it look at connections.
func (r *random) connect() {
	for i, ends := range [][2]string{
		{"172.16.0.2", "172.16.0.6"}, {"172.16.0.2", "192.0.2.2"}, {"192.0.2.2", "172.16.0.10"}, {"172.16.0.6", "172.16.0.10"},
		{"172.16.0.1", "172.16.0.2"}, {"192.0.2.1", "192.0.2.2"}, {"198.51.100.2", "192.0.2.2"}, {"172.16.0.10", "172.16.0.9"},
	} {
		port := uint16(1000 + i)
		c := connection{netip.AddrPortFrom(netip.MustParseAddr(ends[0]), port), netip.AddrPortFrom(netip.MustParseAddr(ends[1]), port)}
		r.connections = append(r.connections, c)
		for _, way := range []connection{c, {c.to, c.from}} {
			r.id++
			p := packet{source: way.from.Addr(), dest: way.to.Addr(), id: r.id, to: hostMAC()}
			if w, local := r.site.owner(p.source); !local {
				p.in, p.mac = w.Name, w.mac()
			}
			p.bytes = ip4(p.source, p.dest, unix.IPPROTO_UDP, p.id, nil, udp(port, port))
			r.site.send(p)
			r.site.settle()
		}
	}
}

// known makes a later packet of a known connection, or an error about one.
func (r *random) known() packet {
	c := pick(r, r.connections...)
	if r.chance(50) {
		c.from, c.to = c.to, c.from
	}
	sender := func(a netip.Addr) *wire {
		w, local := r.site.owner(a)
		if local {
			return nil
		}
		return w
	}
	if r.chance(60) {
		p := packet{what: "later packet"}
		p.Is = append(p.Is, firewall.Established)
		p.Service = model.Service{Protocol: model.UDP, Port: c.to.Port()}
		return r.finish(p, sender(c.from.Addr()), c.from.Addr(), c.to.Addr(), udp(c.from.Port(), c.to.Port()))
	}
	p := packet{what: "error"} // about what c.from sent, to it, by anybody
	p.Is = append(p.Is, firewall.Related)
	from := pick(r, r.site.wires...)
	return r.finish(p, from, r.source(from, c.from.Addr()), c.from.Addr(),
		icmpError(ip4(c.from.Addr(), c.to.Addr(), unix.IPPROTO_UDP, 1, nil, udp(c.from.Port(), c.to.Port()))))
}

func (r *random) ipv6() packet {
	from, to := pick(r, r.site.wires...), pick(r, r.site.wires...)
	r.id++
	p := packet{in: from.Name, out: to.Name, source: six(from.peer), dest: six(to.peer), mac: from.mac(), to: hostMAC(), id: r.id, what: "IPv6"}
	p.Service = pick(r, services()...)
	p.Family, p.From, p.To, p.Source, p.Dest = firewall.IPv6, from.Device, to.Device, p.source, p.dest
	content := payload(p.Service, 20000)
	header := make([]byte, 40)
	header[0] = 0x60
	binary.BigEndian.PutUint16(header[2:], p.id) // the flow label
	binary.BigEndian.PutUint16(header[4:], uint16(len(content)+2))
	header[6], header[7] = protocolOf(p), 64
	copy(header[8:], p.source.AsSlice())
	copy(header[24:], p.dest.AsSlice())
	p.bytes = binary.BigEndian.AppendUint16(append(header, content...), p.id)
	return p
}

// payload returns the first packet of a connection. UDP is without a checksum; that of
// others comes with the rest.
func payload(s model.Service, port uint16) []byte {
	switch s.Protocol {
	case model.TCP:
		b := make([]byte, 20)
		binary.BigEndian.PutUint16(b, port)
		binary.BigEndian.PutUint16(b[2:], s.Port)
		b[12], b[13] = 5<<4, 0x02 // SYN
		return b
	case model.UDP:
		return udp(port, s.Port)
	}
	return []byte{8, 0, 0, 0, byte(port >> 8), byte(port), 0, 1} // echo request
}

func udp(from, to uint16) []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint16(b[4:], 10) // with the identification
	return b
}

func icmpError(about []byte) []byte {
	const unreachable, portUnreachable = 3, 3
	return append([]byte{unreachable, portUnreachable, 0, 0, 0, 0, 0, 0}, about...)
}

// ip4 returns an IPv4 packet, which ends with its identification.
func ip4(source, dest netip.Addr, protocol byte, id uint16, options, content []byte) []byte {
	content = binary.BigEndian.AppendUint16(slices.Clone(content), id)
	if protocol == unix.IPPROTO_ICMP {
		binary.BigEndian.PutUint16(content[2:], ^sum(content))
	}
	if protocol == unix.IPPROTO_TCP {
		pseudo := slices.Concat(source.AsSlice(), dest.AsSlice(), []byte{0, protocol, 0, byte(len(content))}) // RFC 9293
		binary.BigEndian.PutUint16(content[16:], ^sum(append(pseudo, content...)))
	}
	header := 20 + len(options)
	b := make([]byte, header)
	b[0] = 0x40 | byte(header/4)
	binary.BigEndian.PutUint16(b[2:], uint16(header+len(content)))
	binary.BigEndian.PutUint16(b[4:], id)
	b[8], b[9] = 64, protocol
	copy(b[12:], source.AsSlice())
	copy(b[16:], dest.AsSlice())
	copy(b[20:], options)
	binary.BigEndian.PutUint16(b[10:], ^sum(b))
	return append(b, content...)
}

// sum is the one's complement sum of RFC 1071.
func sum(b []byte) uint16 {
	var n uint32
	for i := 0; i < len(b); i += 2 {
		n += uint32(b[i]) << 8
		if i+1 < len(b) {
			n += uint32(b[i+1])
		}
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return uint16(n)
}

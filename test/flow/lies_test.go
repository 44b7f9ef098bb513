package flow_test

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"zwrm/internal/ipam"
)

// lies returns everything that the liar tries.
func (l *liar) lies() []lie {
	return slices.Concat(l.sources(), l.hardware(), l.groups(), l.fragments(), l.malformed(), l.routes(), l.tunnels(), l.ipv6())
}

// frame returns an IPv4 packet in an honest frame.
func (l *liar) frame(packet []byte) []byte { return ethernet(l.mac, etherTypeIPv4, packet) }

// sources are source addresses that are not the liar's.
func (l *liar) sources() []lie {
	block := netip.MustParsePrefix(l.VM.Prefix).Addr()
	var lies []lie
	for _, source := range []struct {
		name    string
		address netip.Addr
	}{
		{"VM of the same app", l.victim},
		{"VM of another app", l.stranger},
		{"own gateway", l.gateway},
		{"own network address", block},
		{"own broadcast address", l.Address().Next()},
		{"gateway of another VM", l.w.machines["db-0-gateway"].address},
		{"nobody's of the subnet", netip.MustParseAddr("172.16.100.2")},
		{"host", l.host},
		{"host's private networking", netip.MustParseAddr("10.0.0.1")},
		{"machine on the internet", l.internet},
		{"machine on the lan", l.lan},
		{"0.0.0.0", netip.IPv4Unspecified()},
		{"loopback", netip.MustParseAddr("127.0.0.1")},
		{"link-local", netip.MustParseAddr("169.254.0.2")},
		{"multicast", netip.MustParseAddr("224.0.0.5")},
		{"class E", netip.MustParseAddr("240.0.0.2")},
		{"everybody", netip.MustParseAddr("255.255.255.255")},
	} {
		var frames [][]byte
		for _, to := range []netip.Addr{l.victim, l.stranger, l.internet, l.gateway, l.host} {
			frames = append(frames, l.frame(udp4(netip.AddrPortFrom(source.address, 4000), netip.AddrPortFrom(to, 53))))
		}
		lies = append(lies, lie{name: "source is " + source.name, reason: "spoofed", frames: frames})
	}
	return lies
}

// hardware are lies about Ethernet addresses, and of ARP.
func (l *liar) hardware() []lie {
	honest := udp4(netip.AddrPortFrom(l.Address(), 4000), netip.AddrPortFrom(l.victim, 9000))
	claim := func(operation uint16, sender, target netip.Addr) []byte {
		return frame{broadcastMAC(), l.mac, etherTypeARP, arp{operation, l.mac, ipam.MAC{}, sender, target}.bytes()}.bytes()
	}
	foreignTo := func(mac ipam.MAC) [][]byte { return [][]byte{ethernet(mac, etherTypeIPv4, honest)} }
	return []lie{
		{name: "MAC of another VM", reason: "spoofed-mac", frames: foreignTo(ipam.MACOf(l.victim))},
		{name: "MAC of the gateway", reason: "spoofed-mac", frames: foreignTo(ipam.GatewayMAC())},
		{name: "MAC 0", reason: "spoofed-mac", frames: foreignTo(ipam.MAC{})},
		{name: "MAC of everybody", reason: "spoofed-mac", frames: foreignTo(broadcastMAC())},
		{name: "MAC of another maker", reason: "spoofed-mac", frames: foreignTo(ipam.MAC{0x02, 0x5b, l.mac[2], l.mac[3], l.mac[4], l.mac[5]})},
		{name: "ARP claims the gateway", frames: [][]byte{claim(2, l.gateway, l.Address()), claim(1, l.gateway, l.gateway)}},
		{name: "ARP claims another VM", frames: [][]byte{claim(2, l.victim, l.gateway), claim(1, l.victim, l.gateway)}},
		{name: "ARP claims the host", frames: [][]byte{claim(2, l.host, l.gateway), claim(1, l.host, l.host)}},
		{name: "gratuitous ARP for the internet", frames: [][]byte{claim(1, l.internet, l.internet), claim(2, l.internet, l.internet)}},
		{name: "ARP asks for the host's other addresses", frames: [][]byte{claim(1, l.Address(), l.host), claim(1, l.Address(), l.w.machines["db-0-gateway"].address)}},
		{name: "VLAN tag", reason: "not-taken", frames: [][]byte{frame{ipam.GatewayMAC(), l.mac, etherTypeIPv4, honest}.tagged(etherTypeVLAN, 5).bytes()}},
		{name: "two VLAN tags", reason: "not-taken", frames: [][]byte{frame{ipam.GatewayMAC(), l.mac, etherTypeIPv4, honest}.tagged(etherTypeVLAN, 5).tagged(etherTypeQinQ, 6).bytes()}},
		{name: "forged source behind VLAN tag 0", reason: "spoofed", frames: [][]byte{frame{ipam.GatewayMAC(), l.mac, etherTypeIPv4,
			udp4(netip.AddrPortFrom(l.internet, 4000), netip.AddrPortFrom(l.victim, 9000))}.tagged(etherTypeVLAN, 0).bytes()}},
		{name: "frame for another Ethernet address", reason: "not-taken", frames: [][]byte{frame{ipam.MACOf(l.victim), l.mac, etherTypeIPv4, honest}.bytes()}},
		{name: "unknown kind of frame", reason: "not-taken", frames: [][]byte{ethernet(l.mac, 0x88b5, honest)}}, // IEEE 802: for experiments
		{name: "spanning tree", frames: [][]byte{frame{ipam.MAC{0x01, 0x80, 0xc2}, l.mac, 38, append([]byte{0x42, 0x42, 0x03}, make([]byte, 35)...)}.bytes()}},
	}
}

// groups are packets for more than one receiver.
func (l *liar) groups() []lie {
	to := func(mac ipam.MAC, dest string, source, port uint16) [][]byte {
		packet := udp4(netip.AddrPortFrom(l.Address(), source), netip.AddrPortFrom(netip.MustParseAddr(dest), port))
		return [][]byte{frame{mac, l.mac, etherTypeIPv4, packet}.bytes()}
	}
	gateway := ipam.GatewayMAC()
	return []lie{
		{name: "broadcast", reason: "multicast", frames: to(broadcastMAC(), "255.255.255.255", 4000, 9000)},
		{name: "broadcast in a frame for one", reason: "host", frames: to(gateway, "255.255.255.255", 4000, 9000)},
		{name: "broadcast of the subnet", reason: "multicast", frames: to(broadcastMAC(), "172.16.255.255", 4000, 9000)},
		{name: "broadcast of the subnet in a frame for one", reason: "no-such-vm", frames: to(gateway, "172.16.255.255", 4000, 9000)},
		{name: "broadcast to another VM's network", reason: "host", frames: to(gateway, l.stranger.Next().String(), 4000, 9000)},
		{name: "one receiver in a frame for everybody", reason: "multicast", frames: to(broadcastMAC(), l.victim.String(), 4000, 9000)},
		{name: "multicast", reason: "multicast", frames: to(ipam.MAC{0x01, 0x00, 0x5e, 0x7f, 0xff, 0xfa}, "239.255.255.250", 4000, 1900)},
		{name: "multicast in a frame for one", reason: "multicast", frames: to(gateway, "224.0.0.251", 5353, 5353)},
		{name: "DHCP server to everybody", reason: "multicast", frames: to(broadcastMAC(), "255.255.255.255", 67, 68)},
		{name: "DHCP server to another app", reason: "other-app", frames: to(gateway, l.stranger.String(), 67, 68)},
		{name: "DHCP client", reason: "spoofed", frames: [][]byte{frame{broadcastMAC(), l.mac, etherTypeIPv4,
			udp4(netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"))}.bytes()}},
	}
}

// fragments are packets in pieces.
func (l *liar) fragments() []lie {
	whole := datagram(4000, 9000, 40)
	piece := func(id uint16, at int, payload []byte, more bool) []byte {
		p := ip4{source: l.Address(), dest: l.stranger, protocol: protocolUDP, id: id, fragment: uint16(at / 8), payload: payload}
		if more {
			p.fragment |= moreFragments
		}
		return l.frame(p.bytes())
	}
	var tiny [][]byte
	for at := 0; at < len(whole); at += 8 {
		tiny = append(tiny, piece(7, at, whole[at:at+8], at+8 < len(whole)))
	}
	return []lie{
		{name: "tiny fragments to another app", reason: "other-app", frames: tiny, counted: 1},
		{name: "overlapping fragments", reason: "fragments", frames: [][]byte{piece(8, 0, whole[:24], true), piece(8, 8, whole[8:32], true)}, counted: 1},
	}
}

// malformed are packets whose header is wrong, or whose sums.
func (l *liar) malformed() []lie {
	spoil := func(change func(packet []byte)) [][]byte {
		packet := udp4(netip.AddrPortFrom(l.Address(), 4000), netip.AddrPortFrom(l.victim, 9000))
		change(packet)
		return [][]byte{l.frame(packet)}
	}
	toInternet := func(protocol byte, payload []byte) [][]byte {
		return [][]byte{l.frame(ip4{source: l.Address(), dest: l.internet, protocol: protocol, payload: payload}.bytes())}
	}
	tooLong := datagram(4000, 9000, 0)
	tooLong[5] += 9
	christmas := make([]byte, 20) // TCP with no data offset and every flag
	binary.BigEndian.PutUint16(christmas[2:], 80)
	christmas[13] = 0xff
	wrongSum := udp4(netip.AddrPortFrom(l.Address(), 4000), netip.AddrPortFrom(l.gateway, 53))
	binary.BigEndian.PutUint16(wrongSum[26:], 0x1234)
	wrongSumOut := udp4(netip.AddrPortFrom(l.Address(), 4000), netip.AddrPortFrom(l.internet, 9000))
	binary.BigEndian.PutUint16(wrongSumOut[26:], 0x1234)
	return []lie{
		{name: "wrong checksum of the header", reason: "malformed", frames: spoil(func(p []byte) { p[10]++ })},
		{name: "header too short", reason: "malformed", frames: spoil(func(p []byte) { p[0] = 0x44; p[10], p[11] = 0, 0 })},
		{name: "longer than its frame", reason: "malformed", frames: spoil(func(p []byte) { p[2] = 0x10; checkIP(p) })},
		{name: "shorter than its header", reason: "malformed", frames: spoil(func(p []byte) { p[2], p[3] = 0, 19; checkIP(p) })},
		{name: "IP version 5", reason: "malformed", frames: spoil(func(p []byte) { p[0] = 0x55; checkIP(p) })},
		{name: "cut off in its header", reason: "malformed", frames: [][]byte{l.frame(udp4(netip.AddrPortFrom(l.Address(), 1), netip.AddrPortFrom(l.victim, 2))[:12])}},
		{name: "wrong checksum of UDP to the internet", reason: "invalid", frames: [][]byte{l.frame(wrongSumOut)}},
		{name: "UDP longer than its packet", reason: "invalid", frames: toInternet(protocolUDP, tooLong)},
		{name: "half a header of UDP", reason: "invalid", frames: toInternet(protocolUDP, tooLong[:4])},
		{name: "TCP with impossible header", reason: "invalid", frames: toInternet(protocolTCP, christmas)},
		{name: "ICMP of unknown type", reason: "invalid", frames: toInternet(protocolICMP, news(42, 0, 0, nil))},
		{name: "wrong checksum of UDP to a service", reason: "invalid", frames: [][]byte{l.frame(wrongSum)}},
	}
}

// routes are packets that would change a way.
func (l *liar) routes() []lie {
	via := func(option byte) []byte { // RFC 791: loose (131) and strict (137) source route, record route (7)
		at := l.stranger.As4()
		return append([]byte{option, 7, 4}, at[0], at[1], at[2], at[3], 0)
	}
	with := func(options []byte) [][]byte {
		return [][]byte{l.frame(ip4{source: l.Address(), dest: l.gateway, protocol: protocolUDP, options: options, payload: datagram(4000, 53, 0)}.bytes()),
			l.frame(ip4{source: l.Address(), dest: l.victim, protocol: protocolUDP, options: options, payload: datagram(4000, 9000, 0)}.bytes())}
	}
	icmp := func(to netip.Addr, message []byte) [][]byte {
		return [][]byte{l.frame(ip4{source: l.Address(), dest: to, protocol: protocolICMP, payload: message}.bytes())}
	}
	const unreachable, portUnreachable, tooLarge, redirect, redirectHost = 3, 3, 4, 5, 1
	self := binary.BigEndian.Uint32(l.Address().AsSlice())
	ofHost := udp4(netip.AddrPortFrom(l.host, hostsPort), netip.AddrPortFrom(l.internet, hostsPort))
	// The stranger's connections are masqueraded: an error about one goes to the host's
	// address, and from there to the stranger.
	ofStranger := udp4(netip.AddrPortFrom(l.host, strangersPort), netip.AddrPortFrom(l.internet, strangersPort))
	inside := udp4(netip.AddrPortFrom(l.stranger, strangersPort), netip.AddrPortFrom(l.internet, strangersPort))
	return []lie{
		{name: "loose source route", reason: "ip-options", frames: with(via(131))},
		{name: "strict source route", reason: "ip-options", frames: with(via(137))},
		{name: "record route", reason: "ip-options", frames: with(via(7))},
		{name: "router alert", reason: "ip-options", frames: with([]byte{148, 4, 0, 0})}, // RFC 2113
		{name: "ICMP redirect to the gateway", reason: "invalid", frames: icmp(l.gateway, news(redirect, redirectHost, self, udp4(netip.AddrPortFrom(l.gateway, 9), netip.AddrPortFrom(l.internet, 9))))},
		{name: "ICMP redirect about a connection of the host", reason: "host", frames: icmp(l.host, news(redirect, redirectHost, self, ofHost))},
		{name: "packet too large, about a connection of the host", reason: "host", frames: icmp(l.host, news(unreachable, tooLarge, 600, ofHost))},
		{name: "port unreachable, about a connection of another app", reason: "other-app", frames: icmp(l.host, news(unreachable, portUnreachable, 0, ofStranger))},
		{name: "packet too large, about a connection of another app", reason: "other-app", frames: icmp(l.host, news(unreachable, tooLarge, 600, ofStranger))},
		{name: "the same, past the masquerading", reason: "other-app", frames: icmp(l.stranger, news(unreachable, tooLarge, 600, inside))},
	}
}

// tunnels wrap a packet for whom the liar may not reach.
func (l *liar) tunnels() []lie {
	inner := udp4(netip.AddrPortFrom(l.Address(), 4000), netip.AddrPortFrom(l.stranger, 9000))
	wrap := func(protocol byte, to netip.Addr, payload []byte) [][]byte {
		return [][]byte{l.frame(ip4{source: l.Address(), dest: to, protocol: protocol, payload: payload}.bytes())}
	}
	gre := append([]byte{0, 0, 0x08, 0}, inner...) // RFC 2784
	six := udp6(addrPort("2002:ac10:0002::1", 4000), addrPort("2002:ac10:000a::1", 9000))
	return []lie{
		{name: "GRE to the gateway", reason: "host", frames: wrap(protocolGRE, l.gateway, gre)},
		{name: "GRE to another app", reason: "other-app", frames: wrap(protocolGRE, l.stranger, gre)},
		{name: "IPIP to the host", reason: "host", frames: wrap(protocolIPIP, l.host, inner)},
		{name: "IPIP to a denied address", reason: "egress-denied", frames: wrap(protocolIPIP, netip.MustParseAddr("169.254.169.254"), inner)},
		{name: "6in4 to the gateway", reason: "host", frames: wrap(protocol6in4, l.gateway, six)},
		{name: "6in4 to a machine on the lan", reason: "other-interface", frames: wrap(protocol6in4, l.lan, six)},
	}
}

// ipv6 is anything in IPv6.
func (l *liar) ipv6() []lie {
	const icmp6, routerAdvertisement, neighbourAdvertisement = 58, 134, 136
	self, all := netip.MustParseAddr("fe80::1"), netip.MustParseAddr("ff02::1")
	six := func(packet []byte) [][]byte {
		return [][]byte{frame{ipam.MAC{0x33, 0x33, 0, 0, 0, 1}, l.mac, etherTypeIPv6, packet}.bytes()}
	}
	router := []byte{routerAdvertisement, 0, 0, 0, 64, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0}
	neighbour := append([]byte{neighbourAdvertisement, 0, 0, 0, 0x20, 0, 0, 0}, self.AsSlice()...)
	return []lie{
		{name: "IPv6 router advertisement", reason: "ipv6-off", frames: six(ip6(self, all, icmp6, 2, router))},
		{name: "IPv6 neighbour advertisement", reason: "ipv6-off", frames: six(ip6(self, all, icmp6, 2, neighbour))},
		{name: "IPv6 to all nodes", reason: "ipv6-off", frames: six(udp6(addrPort("fe80::1", 4000), addrPort("ff02::1", 9000)))},
		{name: "IPv6 out of the block of 6to4", reason: "ipv6-off", frames: six(udp6(addrPort("2002:ac10:2::1", 4000), addrPort("2002:c000:202::1", 9000)))},
	}
}

package nftables

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"zwrm/internal/firewall"
	"zwrm/internal/model"
)

// Offsets of the addresses in the header of IPv4 (RFC 791), in bytes.
const (
	sourceOffset = 12
	destOffset   = 16
)

func equal(data []byte) expr.Any    { return compare(expr.CmpOpEq, data) }
func notEqual(data []byte) expr.Any { return compare(expr.CmpOpNeq, data) }

func compare(op expr.CmpOp, data []byte) expr.Any {
	return &expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: data}
}

// masked keeps of a register what the mask selects.
func masked(mask []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1,
		Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}
}

// family compares the IP version. The matches on addresses read the header of
// IPv4 and mean nothing on another.
func (b *builder) family(r firewall.Rule) error {
	onlyIPv4 := slices.Contains([]firewall.Packet{firewall.NotGuest, firewall.ToGuest, firewall.EchoGateway, firewall.ForeignMAC, firewall.Options}, r.Packet)
	for _, p := range []netip.Prefix{r.Source, r.Dest} {
		if p.IsValid() && !p.Addr().Is4() {
			return fmt.Errorf("address %q is not IPv4", p)
		}
		onlyIPv4 = onlyIPv4 || p.IsValid()
	}
	if onlyIPv4 && r.Family != firewall.IPv4 {
		return fmt.Errorf("it compares what only IPv4 has, and is for %s", r.Family)
	}
	switch r.Family {
	case firewall.IPv4:
		b.match("meta nfproto ipv4", &expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1}, equal([]byte{unix.NFPROTO_IPV4}))
	case firewall.IPv6:
		b.match("meta nfproto ipv6", &expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1}, equal([]byte{unix.NFPROTO_IPV6}))
	}
	return nil
}

// devices compares the device by which a packet came or leaves; side is "iif" or
// "oif". A packet that has no such device does not match.
func (b *builder) devices(side string, group, name expr.MetaKey, d firewall.Devices) {
	load := func(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: unix.NFT_REG_1} }
	ours := fmt.Sprintf("%sgroup & %s", side, model.GroupMask)
	switch {
	case d.Group != 0:
		b.match(fmt.Sprintf("%sgroup %s", side, d.Group), load(group), equal(register(d.Group)))
	case d.VMs:
		b.match(fmt.Sprintf("%s == %s", ours, model.GroupUnassigned),
			load(group), masked(register(model.GroupMask)), equal(register(model.GroupUnassigned)))
	case d.Stray:
		b.match(fmt.Sprintf("%sname %q", side, firewall.StrayPattern+"*"), load(name), equal([]byte(firewall.StrayPattern)))
		b.match(fmt.Sprintf("%s != %s", ours, model.GroupUnassigned),
			load(group), masked(register(model.GroupMask)), notEqual(register(model.GroupUnassigned)))
	case d.Name != "":
		whole := make([]byte, unix.IFNAMSIZ) // with its end: shorter data would be a prefix
		copy(whole, d.Name)
		b.match(fmt.Sprintf("%sname %q", side, d.Name), load(name), equal(whole))
	}
}

// prefix compares an address; field is "saddr" or "daddr".
func (b *builder) prefix(field string, offset uint32, p netip.Prefix) {
	if !p.IsValid() || p.Bits() == 0 { // every address
		return
	}
	text := p.Masked().String()
	if p.IsSingleIP() {
		text = p.Addr().String()
	}
	b.match("ip "+field+" "+text, load4(offset), masked(net.CIDRMask(p.Bits(), 32)), equal(p.Masked().Addr().AsSlice()))
}

// guestOf compares the destination with all addresses of guests in a subnet at once.
func (b *builder) guestOf(subnet netip.Prefix) {
	host, mask := firewall.GuestHost()
	value, bits := host.As4(), mask.As4()
	if subnet.IsValid() {
		within := subnet.Masked().Addr().As4()
		for i, ones := range net.CIDRMask(subnet.Bits(), 32) {
			value[i] |= within[i]
			bits[i] |= ones
		}
	}
	b.match(fmt.Sprintf("ip daddr & %s == %s", netip.AddrFrom4(bits), netip.AddrFrom4(value)), load4(destOffset), masked(bits[:]), equal(value[:]))
}

func load4(offset uint32) expr.Any {
	return &expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}
}

func (b *builder) protocol(number byte) {
	// As text it is part of the match that follows.
	b.expressions = append(b.expressions, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1}, equal([]byte{number}))
}

func (b *builder) packet(p firewall.Packet) error {
	switch p {
	case "", firewall.ToGuest: // the latter is compared with the address
	case firewall.NotGuest:
		host, mask := firewall.GuestHost()
		b.match(fmt.Sprintf("ip saddr & %s != %s", mask, host), load4(sourceOffset), masked(mask.AsSlice()), notEqual(host.AsSlice()))
	case firewall.Established:
		b.state("established", expr.CtStateBitESTABLISHED)
	case firewall.Related:
		b.state("related", expr.CtStateBitRELATED)
	case firewall.Invalid:
		b.state("invalid", expr.CtStateBitINVALID)
	case firewall.RelatedToGateway:
		b.state("related", expr.CtStateBitRELATED)
		b.toGateway()
	case firewall.ForeignMAC:
		return b.foreignMAC()
	case firewall.Options:
		b.match("ip hdrlength != 5", // words; RFC 791
			&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Len: 1}, masked([]byte{0x0f}), notEqual([]byte{5}))
	case firewall.NotUnicast:
		b.match("meta pkttype != unicast", &expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: unix.NFT_REG_1}, notEqual([]byte{unix.PACKET_HOST}))
	case firewall.Misrouted:
		// The route back to the source, if it leads to the device the packet came by.
		b.match("fib saddr . iif oif missing",
			&expr.Fib{Register: unix.NFT_REG_1, FlagSADDR: true, FlagIIF: true, FlagPRESENT: true, ResultOIF: true}, equal(make([]byte, 4)))
	case firewall.EchoGateway:
		b.protocol(unix.IPPROTO_ICMP)
		b.match("icmp type echo-request", // 8 (RFC 792)
			&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseTransportHeader, Len: 1}, equal([]byte{8}))
		b.toGateway()
	case firewall.ToGateway:
		b.toGateway()
	default:
		return fmt.Errorf("nftables has no match for %q", p)
	}
	return nil
}

// foreignMAC calls the match of iptables that runs a program (struct xt_bpf_info of
// linux/netfilter/xt_bpf.h).
func (b *builder) foreignMAC() error {
	const instructions, size = 64, 528
	program, err := firewall.ForeignMACProgram()
	if err != nil || len(program) > instructions {
		return fmt.Errorf("make the program of %d instructions: %w", len(program), err)
	}
	info := binary.NativeEndian.AppendUint16(make([]byte, 0, size), uint16(len(program)))
	info = append(info, 0, 0)
	for _, i := range program {
		info = append(binary.NativeEndian.AppendUint16(info, i.Op), i.Jt, i.Jf)
		info = binary.NativeEndian.AppendUint32(info, i.K)
	}
	data := xt.Unknown(info[:size])
	b.match(`xt match "bpf"`, &expr.Match{Name: "bpf", Info: &data})
	return nil
}

// state compares the state of the packet's connection.
func (b *builder) state(name string, bit uint32) {
	b.match("ct state "+name, &expr.Ct{Key: expr.CtKeySTATE, Register: unix.NFT_REG_1},
		masked(binary.NativeEndian.AppendUint32(nil, bit)), notEqual(make([]byte, 4)))
}

// toGateway compares with the addresses of the device that the packet came by.
// Without iif, a guest would reach the gateway addresses of all others.
func (b *builder) toGateway() {
	b.match("fib daddr . iif type local",
		&expr.Fib{Register: unix.NFT_REG_1, FlagDADDR: true, FlagIIF: true, ResultADDRTYPE: true},
		equal(binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)))
}

package ipam

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Slot is the index of a VM's /30 in the subnet: 0 .. Capacity-1.
type Slot uint32

// TAPPrefix begins the name of every TAP of ZWRM. The firewall matches it.
const TAPPrefix = "zvm"

// blockBits is the prefix length of a VM's block: 4 addresses, of which the
// second is the gateway (host side) and the third the guest's.
const blockBits = 30

// TAP returns the name of the slot's TAP, as in "zvm17": at most 11 bytes, where
// the kernel allows 15 (IFNAMSIZ).
func (s Slot) TAP() string { return TAPPrefix + strconv.FormatUint(uint64(s), 10) }

// ParseTAP returns the slot of a TAP's name. It reports false for names that
// TAP does not make, such as "zvm01".
func ParseTAP(name string) (Slot, bool) {
	digits, ok := strings.CutPrefix(name, TAPPrefix)
	if !ok || digits != "0" && strings.HasPrefix(digits, "0") {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return Slot(n), err == nil
}

// MAC is an Ethernet address.
type MAC [6]byte

// String returns the address as in "02:5a:ac:10:00:02".
func (m MAC) String() string {
	const digits = "0123456789abcdef"
	var text [3*len(m) - 1]byte
	for i, b := range m {
		text[3*i], text[3*i+1] = digits[b>>4], digits[b&0xf]
		if i > 0 {
			text[3*i-1] = ':'
		}
	}
	return string(text[:])
}

// GatewayMAC is the address of the host's side of every TAP. It is the same on
// all, and locally administered (IEEE 802, bit 1 of the first octet), so that a
// guest restored from a snapshot on another slot finds the gateway it knows.
func GatewayMAC() MAC { return MAC{0x02, 0x5a, 0xff, 0xff, 0xff, 0xfe} }

// Layout divides a subnet into /30 blocks.
type Layout struct{ subnet netip.Prefix }

// NewLayout checks that the subnet is an IPv4 network that holds at least one /30.
func NewLayout(subnet netip.Prefix) (Layout, error) {
	switch {
	case !subnet.IsValid() || !subnet.Addr().Is4():
		return Layout{}, fmt.Errorf("subnet %q is not IPv4", subnet)
	case subnet != subnet.Masked():
		return Layout{}, fmt.Errorf("subnet %q is not a network address: use %q", subnet, subnet.Masked())
	case subnet.Bits() > blockBits:
		return Layout{}, fmt.Errorf("subnet %q is longer than /%d: it holds no VM", subnet, blockBits)
	case subnet.Bits() < 8:
		return Layout{}, fmt.Errorf("subnet %q is shorter than /8: no private range is that large", subnet)
	}
	return Layout{subnet}, nil
}

// Subnet returns the subnet that is divided.
func (l Layout) Subnet() netip.Prefix { return l.subnet }

// Capacity returns how many VMs the subnet holds: 2^(30-p) of a /p.
func (l Layout) Capacity() int { return 1 << (blockBits - l.subnet.Bits()) }

// Block returns the slot's /30.
func (l Layout) Block(s Slot) netip.Prefix { return netip.PrefixFrom(l.addr(s, 0), blockBits) }

// Gateway returns the address of the host's side of the slot's TAP.
func (l Layout) Gateway(s Slot) netip.Addr { return l.addr(s, 1) }

// Guest returns the address of the slot's guest.
func (l Layout) Guest(s Slot) netip.Addr { return l.addr(s, 2) }

// IsGuest reports whether an IPv4 address is that of a guest, in whichever subnet.
func IsGuest(a netip.Addr) bool { return a.Is4() && a.As4()[3]&3 == 2 }

// Netmask returns the mask of every block.
func (Layout) Netmask() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 252}) }

// GuestMAC returns the Ethernet address of the slot's guest.
func (l Layout) GuestMAC(s Slot) MAC { return MACOf(l.Guest(s)) }

// MACOf returns the Ethernet address that belongs to an IPv4 address of a guest: 02:5a
// and its four bytes.
func MACOf(guest netip.Addr) MAC {
	a := guest.As4()
	return MAC{0x02, 0x5a, a[0], a[1], a[2], a[3]}
}

// KernelArgs returns the kernel argument that configures the guest's network
// without DHCP, in the form of Linux Documentation/admin-guide/nfs/nfsroot.rst:
// ip=<guest>::<gateway>:<netmask>:<hostname>:eth0:off. At most two resolvers
// are passed on; the form has room for no more.
func (l Layout) KernelArgs(s Slot, hostname string, dns []netip.Addr) string {
	arg := append(make([]byte, 0, 128), "ip="...)
	arg = l.Guest(s).AppendTo(arg)
	arg = l.Gateway(s).AppendTo(append(arg, "::"...))
	arg = l.Netmask().AppendTo(append(arg, ':'))
	arg = append(append(append(arg, ':'), hostname...), ":eth0:off"...)
	for _, a := range dns[:min(len(dns), 2)] {
		arg = a.AppendTo(append(arg, ':'))
	}
	return string(arg)
}

func (l Layout) addr(s Slot, offset uint32) netip.Addr {
	base := l.subnet.Addr().As4()
	var out [4]byte
	binary.BigEndian.PutUint32(out[:], binary.BigEndian.Uint32(base[:])+uint32(s)<<2+offset)
	return netip.AddrFrom4(out)
}

// SlotOf returns the slot of the block that an address is in. It reports false for
// addresses outside of the subnet.
func (l Layout) SlotOf(a netip.Addr) (Slot, bool) {
	if !l.subnet.Contains(a) {
		return 0, false
	}
	base, at := l.subnet.Addr().As4(), a.As4()
	return Slot((binary.BigEndian.Uint32(at[:]) - binary.BigEndian.Uint32(base[:])) >> 2), true
}

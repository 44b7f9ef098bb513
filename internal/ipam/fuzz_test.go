package ipam_test

import (
	"encoding/binary"
	"math/big"
	"net/netip"
	"testing"

	"zwrm/internal/ipam"
)

// FuzzLayout compares the arithmetic of slots with numbers that cannot overflow, on
// every prefix that there is.
func FuzzLayout(f *testing.F) {
	f.Add(uint32(0xac100000), 16, uint32(0))
	f.Add(uint32(0xac100000), 16, uint32(16383))
	f.Add(uint32(0x0a000000), 8, uint32(1<<22-1))
	f.Add(uint32(0xfffffffc), 30, uint32(0))
	f.Add(uint32(0xffffff00), 24, uint32(64))
	f.Add(uint32(0), 0, uint32(0))
	f.Fuzz(func(t *testing.T, address uint32, bits int, slot uint32) {
		if bits < 0 || bits > 32 {
			return
		}
		prefix := netip.PrefixFrom(addressOf(big.NewInt(int64(address))), bits)
		layout, err := ipam.NewLayout(prefix)
		if good := prefix == prefix.Masked() && bits >= 8 && bits <= 30; good != (err == nil) {
			t.Fatalf("%s: %v", prefix, err)
		}
		s := ipam.Slot(slot)
		if back, ok := ipam.ParseTAP(s.TAP()); !ok || back != s || len(s.TAP()) > 15 {
			t.Errorf("slot %d has TAP %q, which is that of slot %d", s, s.TAP(), back)
		}
		if err != nil {
			return
		}
		capacity := new(big.Int).Div(new(big.Int).Lsh(big.NewInt(1), uint(32-bits)), big.NewInt(4))
		if big.NewInt(int64(layout.Capacity())).Cmp(capacity) != 0 {
			t.Errorf("%s: capacity %d, want %s", prefix, layout.Capacity(), capacity)
		}
		if int64(slot) >= int64(layout.Capacity()) {
			return
		}
		first := new(big.Int).Add(big.NewInt(int64(address)), new(big.Int).Mul(big.NewInt(4), big.NewInt(int64(slot))))
		at := func(offset int64) netip.Addr { return addressOf(new(big.Int).Add(first, big.NewInt(offset))) }
		block := layout.Block(s)
		if block != netip.PrefixFrom(at(0), 30) || layout.Gateway(s) != at(1) || layout.Guest(s) != at(2) {
			t.Errorf("%s, slot %d: %s, %s, %s", prefix, s, block, layout.Gateway(s), layout.Guest(s))
		}
		if !prefix.Contains(at(0)) || !prefix.Contains(at(3)) || block != block.Masked() {
			t.Errorf("%s, slot %d: the block %s is not one of the subnet", prefix, s, block)
		}
		if !ipam.IsGuest(at(2)) || ipam.IsGuest(at(0)) || ipam.IsGuest(at(1)) || ipam.IsGuest(at(3)) {
			t.Errorf("%s, slot %d: of the block's addresses another than the third is the guest's", prefix, s)
		}
		if mac, guest := layout.GuestMAC(s), at(2).As4(); [4]byte(mac[2:]) != guest || mac[0]&1 != 0 {
			t.Errorf("%s, slot %d: Ethernet address %s", prefix, s, mac)
		}
	})
}

// addressOf returns the IPv4 address of a number below 2^32.
func addressOf(n *big.Int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n.Uint64()))
	return netip.AddrFrom4(b)
}

// FuzzParseTAP: a name that is taken for that of a slot is the one that the slot has.
func FuzzParseTAP(f *testing.F) {
	for _, name := range []string{"zvm0", "zvm4294967295", "zvm4294967296", "zvm01", "zvm+1", "zvm", "zvm1_0", "eth0"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if slot, ok := ipam.ParseTAP(name); ok && slot.TAP() != name {
			t.Errorf("%q is taken for %q", name, slot.TAP())
		}
	})
}

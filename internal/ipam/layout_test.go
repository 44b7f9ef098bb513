package ipam_test

import (
	"net/netip"
	"strings"
	"testing"

	"zwrm/internal/ipam"
)

func TestLayout(t *testing.T) {
	layout, err := ipam.NewLayout(netip.MustParsePrefix("172.16.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	if got := layout.Capacity(); got != 16384 {
		t.Errorf("capacity %d, want 16384", got)
	}
	tests := []struct {
		slot                            ipam.Slot
		tap, block, gateway, guest, mac string
	}{
		{0, "zvm0", "172.16.0.0/30", "172.16.0.1", "172.16.0.2", "02:5a:ac:10:00:02"},
		{1, "zvm1", "172.16.0.4/30", "172.16.0.5", "172.16.0.6", "02:5a:ac:10:00:06"},
		{64, "zvm64", "172.16.1.0/30", "172.16.1.1", "172.16.1.2", "02:5a:ac:10:01:02"},
		{16383, "zvm16383", "172.16.255.252/30", "172.16.255.253", "172.16.255.254", "02:5a:ac:10:ff:fe"},
	}
	for _, test := range tests {
		t.Run(test.tap, func(t *testing.T) {
			for _, pair := range [][2]string{
				{test.slot.TAP(), test.tap},
				{layout.Block(test.slot).String(), test.block},
				{layout.Gateway(test.slot).String(), test.gateway},
				{layout.Guest(test.slot).String(), test.guest},
				{layout.GuestMAC(test.slot).String(), test.mac},
			} {
				if pair[0] != pair[1] {
					t.Errorf("got %q, want %q", pair[0], pair[1])
				}
			}
			if slot, ok := ipam.ParseTAP(test.tap); !ok || slot != test.slot {
				t.Errorf("ParseTAP(%q) = %d, %t", test.tap, slot, ok)
			}
		})
	}
}

func TestNewLayoutRefuses(t *testing.T) {
	for subnet, want := range map[string]string{
		"2001:db8::/64": "not IPv4",
		"172.16.0.1/16": `use "172.16.0.0/16"`,
		"172.16.0.0/31": "longer than /30",
		"0.0.0.0/0":     "shorter than /8",
	} {
		_, err := ipam.NewLayout(netip.MustParsePrefix(subnet))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", subnet, err, want)
		}
	}
}

func TestParseTAPRefuses(t *testing.T) {
	for _, name := range []string{"", "zvm", "zvm01", "zvm-1", "zvm1x", "eth0", "zvm99999999999"} {
		if slot, ok := ipam.ParseTAP(name); ok {
			t.Errorf("ParseTAP(%q) = %d", name, slot)
		}
	}
}

func TestKernelArgs(t *testing.T) {
	layout, err := ipam.NewLayout(netip.MustParsePrefix("10.1.0.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("9.9.9.9")
	for _, test := range []struct {
		dns  []netip.Addr
		want string
	}{
		{nil, "ip=10.1.0.14::10.1.0.13:255.255.255.252:web-3:eth0:off"},
		{[]netip.Addr{a}, "ip=10.1.0.14::10.1.0.13:255.255.255.252:web-3:eth0:off:1.1.1.1"},
		{[]netip.Addr{a, b, c}, "ip=10.1.0.14::10.1.0.13:255.255.255.252:web-3:eth0:off:1.1.1.1:8.8.8.8"},
	} {
		if got := layout.KernelArgs(3, "web-3", test.dns); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

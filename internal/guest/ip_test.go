package guest

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"zwrm/internal/ipam"
)

func TestParseIP(t *testing.T) {
	web0 := Network{
		Address:  netip.MustParsePrefix("172.16.0.2/30"),
		Gateway:  netip.MustParseAddr("172.16.0.1"),
		HostName: "web-0",
		Device:   "eth0",
	}
	with := func(change func(*Network)) Network {
		n := web0
		change(&n)
		return n
	}
	tests := []struct {
		name  string
		value string
		want  Network
	}{
		{"none given", "", Network{}},
		{"off", "off", Network{}},
		{"none", "none", Network{}},
		{"as ZWRM writes it", "172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0:off", web0},
		{"one name server", "172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0:off:1.1.1.1", with(func(n *Network) {
			n.DNS = []netip.Addr{netip.MustParseAddr("1.1.1.1")}
		})},
		{"two name servers", "172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0:off:1.1.1.1:9.9.9.9", with(func(n *Network) {
			n.DNS = []netip.Addr{netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("9.9.9.9")}
		})},
		{"only the second name server", "172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0:off:0.0.0.0:9.9.9.9", with(func(n *Network) {
			n.DNS = []netip.Addr{netip.MustParseAddr("9.9.9.9")}
		})},
		{"server and time server", "172.16.0.2:10.0.0.1:172.16.0.1:255.255.255.252:web-0:eth0:off:::10.0.0.9", web0},
		{"no autoconf field", "172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0", web0},
		{"autoconf with all given", "172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0:dhcp", web0},
		{"no gateway", "172.16.0.2:::255.255.255.252:web-0:eth0:off", with(func(n *Network) { n.Gateway = netip.Addr{} })},
		{"gateway 0.0.0.0", "172.16.0.2::0.0.0.0:255.255.255.252:web-0:eth0:off", with(func(n *Network) { n.Gateway = netip.Addr{} })},
		{"any device", "172.16.0.2::172.16.0.1:255.255.255.252:web-0::off", with(func(n *Network) { n.Device = "" })},
		{"domain", "172.16.0.2::172.16.0.1:255.255.255.252:web-0.zwrm.internal:eth0:off", web0},
		{"client alone", "172.16.0.2", Network{Address: netip.MustParsePrefix("172.16.0.2/16"), HostName: "172.16.0.2"}},
		{"class A", "10.1.2.3:", Network{Address: netip.MustParsePrefix("10.1.2.3/8"), HostName: "10.1.2.3"}},
		{"class C", "192.168.1.2:", Network{Address: netip.MustParsePrefix("192.168.1.2/24"), HostName: "192.168.1.2"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseIP(test.value)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func TestParseIPRefuses(t *testing.T) {
	tests := []struct {
		name  string
		value string
		want  string // part of the message
	}{
		{"DHCP", "dhcp", "only static addresses"},
		{"on", "on", "only static addresses"},
		{"DHCP on a device", ":::::eth0:dhcp", "no client address"},
		{"only colons", ":::::::", "no client address"},
		{"client 0.0.0.0", "0.0.0.0::172.16.0.1:255.255.255.252", "no client address"},
		{"IPv6 client", "2001:db8::1", "is not an IPv4 address"},
		{"IPv6 in brackets", "[2001:db8::1]::[2001:db8::2]:64:web-0:eth0:off", "at most 10"},
		{"IPv4 in IPv6", "::ffff:172.16.0.2", `gateway "ffff"`},
		{"prefix length", "172.16.0.2/30", "is not an IPv4 address"},
		{"netmask as a number", "172.16.0.2::172.16.0.1:30", `netmask "30"`},
		{"netmask with holes", "172.16.0.2::172.16.0.1:255.0.255.0", "has holes"},
		{"class D", "224.0.0.1", "no address of a host"},
		{"class E without a mask", "240.0.0.1", "no class"},
		{"broadcast", "255.255.255.255", "no address of a host"},
		{"loopback", "127.0.0.2", "no address of a host"},
		{"gateway elsewhere", "172.16.0.2::172.16.0.5:255.255.255.252", `lies outside "172.16.0.0/30"`},
		{"gateway is the guest", "172.16.0.2::172.16.0.2:255.255.255.252", "own address"},
		{"server", "172.16.0.2:x:172.16.0.1:255.255.255.252", `server "x"`},
		{"name server", "172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0:off:dns", `name server "dns"`},
		{"time server", "172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0:off:::pool", `time server "pool"`},
		{"autoconf", "172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0:maybe", `autoconf "maybe"`},
		{"too many fields", "172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0:off::::x", "11 fields"},
		{"quotes", `"172.16.0.2::172.16.0.1`, "is not an IPv4 address"},
		{"leading zero", "172.16.00.2", "is not an IPv4 address"},
		{"white space", "172.16.0.2 ::172.16.0.1", "is not an IPv4 address"},
		{"host name with a space", "172.16.0.2::172.16.0.1:255.255.255.252:web 0", "host name"},
		{"host name with a control character", "172.16.0.2::172.16.0.1:255.255.255.252:web\x1b[2J", "host name"},
		{"host name is a dot", "172.16.0.2::172.16.0.1:255.255.255.252:.", "host name"},
		{"host name too long", "172.16.0.2::172.16.0.1:255.255.255.252:" + strings.Repeat("a", 65), "host name"},
		{"device with a slash", "172.16.0.2::172.16.0.1:255.255.255.252:web-0:../eth0", "device"},
		{"device too long", "172.16.0.2::172.16.0.1:255.255.255.252:web-0:abcdefghijklmnop", "device"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseIP(test.value)
			if err == nil {
				t.Fatalf("got %+v, want an error with %q", got, test.want)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q lacks %q", err, test.want)
			}
			if !reflect.DeepEqual(got, Network{}) {
				t.Errorf("got %+v beside the error", got)
			}
		})
	}
}

// TestParseIPReadsWhatIPAMWrites holds both ends of ip= together: the host
// writes it in package ipam, the guest reads it here.
func TestParseIPReadsWhatIPAMWrites(t *testing.T) {
	layout, err := ipam.NewLayout(netip.MustParsePrefix("172.16.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	dns := []netip.Addr{netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("8.8.8.8")}
	for _, slot := range []ipam.Slot{0, 1, 63, 64, 16383} {
		for servers := range len(dns) + 1 {
			line := ParseCmdline("quiet " + layout.KernelArgs(slot, "web-0", dns[:servers]))
			got, err := ParseIP(line.IP)
			if err != nil {
				t.Fatal(err)
			}
			want := Network{
				Address:  netip.PrefixFrom(layout.Guest(slot), 30),
				Gateway:  layout.Gateway(slot),
				HostName: "web-0",
				Device:   "eth0",
			}
			if servers > 0 {
				want.DNS = dns[:min(servers, 2)]
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("slot %d, %d servers:\ngot  %+v\nwant %+v", slot, servers, got, want)
			}
		}
	}
}

func FuzzParseIP(f *testing.F) {
	for _, seed := range []string{
		"172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0:off:1.1.1.1:9.9.9.9",
		"off", "dhcp", "[2001:db8::1]::::::", "::::::::::", "10.0.0.1", `"10.0.0.1"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		n, err := ParseIP(value)
		if err != nil || !n.Address.IsValid() {
			if !reflect.DeepEqual(n, Network{}) {
				t.Fatalf("%q: half a network %+v (%v)", value, n, err)
			}
			return
		}
		if !n.Address.Addr().Is4() {
			t.Errorf("%q: address %s", value, n.Address)
		}
		if n.Gateway.IsValid() && (!n.Address.Contains(n.Gateway) || n.Gateway == n.Address.Addr()) {
			t.Errorf("%q: gateway %s of %s", value, n.Gateway, n.Address)
		}
		if n.HostName == "" || len(n.HostName) > 64 || strings.ContainsAny(n.HostName, " \n\x1b/") {
			t.Errorf("%q: host name %q", value, n.HostName)
		}
		if len(n.Device) > 15 || strings.ContainsAny(n.Device, " \n\x1b/") {
			t.Errorf("%q: device %q", value, n.Device)
		}
		for _, server := range n.DNS {
			if !server.Is4() {
				t.Errorf("%q: name server %s", value, server)
			}
		}
	})
}

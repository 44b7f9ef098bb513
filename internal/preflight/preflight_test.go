package preflight_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"zwrm/internal/config"
	"zwrm/internal/host"
	"zwrm/internal/model"
	"zwrm/internal/plan"
	"zwrm/internal/preflight"
)

// goodHost is a host on which nothing stands in the way, with TAPs and a bridge
// of an earlier zwrmd.
func goodHost() preflight.Facts {
	return preflight.Facts{
		Root: true,
		Links: []host.Link{
			{Name: "lo", Addresses: prefixes("127.0.0.1/8"), MTU: 65536},
			{Name: "wifi0", MTU: 1400},
			{Name: "eth0", Addresses: prefixes("192.0.2.10/24"), MTU: 1500},
			{Name: "zvm3", Kind: host.KindTAP, Group: 0x5a000001, Addresses: prefixes("172.16.0.13/30")},
			{Name: "zwrmd0", Kind: host.KindBridge, Alias: plan.BridgeAlias, Addresses: prefixes("10.0.0.1/16")},
			{Name: "zvm4", Kind: host.KindTAP, Group: model.GroupCondemned, Addresses: prefixes("172.16.0.17/30")},
		},
		Routes: []host.Route{
			{Dest: netip.MustParsePrefix("0.0.0.0/0"), Device: "wifi0", Table: 254, Metric: 600},
			{Dest: netip.MustParsePrefix("0.0.0.0/0"), Device: "eth0", Table: 254, Metric: 100},
			{Dest: netip.MustParsePrefix("0.0.0.0/0"), Device: "vpn0", Table: 51820},
			{Dest: netip.MustParsePrefix("192.0.2.0/24"), Device: "eth0"},
			{Dest: netip.MustParsePrefix("172.16.0.12/30"), Device: "zvm3"},
			{Dest: netip.MustParsePrefix("10.0.0.0/16"), Device: "zwrmd0"},
		},
	}
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func parse(t *testing.T, text string) config.Config {
	t.Helper()
	cfg, err := config.Parse(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestCheck(t *testing.T) {
	const private = "[network.bridge]\nenabled = true\n"
	tests := []struct {
		name   string
		config string
		change func(*preflight.Facts)
		want   string // part of the one problem; empty: none
	}{
		{name: "nothing wrong"},
		{name: "nothing wrong with private networking", config: private},
		{name: "not root", change: func(f *preflight.Facts) { f.Root = false }, want: "zwrmd: does not run as root"},
		{name: "no tun", change: func(f *preflight.Facts) { f.TUN = errors.New("no such file") }, want: "/dev/net/tun: cannot be opened: no such file; load it"},
		{name: "no dataplane", change: func(f *preflight.Facts) { f.Firewall = errors.New("iptables is missing") },
			want: `network.firewall = "iptables": iptables is missing`},
		{name: "no such interface", config: "[network]\nexternal_interface = \"wan7\"\n",
			want: `network.external_interface = "wan7": no interface of this name exists`},
		{name: "no default route", change: func(f *preflight.Facts) { f.Routes = f.Routes[3:] },
			want: "network.external_interface: is not set, and the host has no default route"},
		{name: "mtu past the uplink's", config: "[network]\nmtu = 9000\n", want: `network.mtu = 9000: is larger than that of interface "eth0", 1500`},
		{name: "subnet overlaps an address", config: "[network]\nsubnet = \"192.0.2.0/24\"\n",
			want: `network.subnet = "192.0.2.0/24": overlaps address 192.0.2.10/24 of interface "eth0"`},
		{name: "subnet overlaps a route", change: func(f *preflight.Facts) {
			f.Routes = append(f.Routes, host.Route{Dest: netip.MustParsePrefix("172.16.8.0/24"), Device: "eth0"})
		}, want: `network.subnet = "172.16.0.0/16": overlaps the route to 172.16.8.0/24 by "eth0"`},
		{name: "bridge subnet overlaps a route", config: private, change: func(f *preflight.Facts) {
			f.Routes = append(f.Routes, host.Route{Dest: netip.MustParsePrefix("10.0.0.0/8"), Device: "eth0"})
		}, want: `network.bridge.subnet = "10.0.0.0/16": overlaps the route to 10.0.0.0/8 by "eth0"`},
		{name: "foreign TAP of our name", change: func(f *preflight.Facts) { f.Links[3].Group = 0 },
			want: `interface "zvm3": has the name of a TAP of ours, but is not ours: a tap in group 0x0`},
		{name: "foreign link that the rules would catch", change: func(f *preflight.Facts) {
			f.Links = append(f.Links, host.Link{Name: "zvmnet", Kind: "veth", Group: model.GroupUnassigned})
		}, want: `interface "zvmnet": has the name of a TAP of ours`},
		{name: "foreign bridge", config: private, change: func(f *preflight.Facts) {
			f.Links[4].Alias = ""
			f.Links[4].Addresses = nil
			f.Routes = f.Routes[:5]
		}, want: `network.bridge.name = "zwrmd0": is the name of a bridge that is not ours`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			facts := goodHost()
			if test.change != nil {
				test.change(&facts)
			}
			var lines []string
			for _, p := range preflight.Check(parse(t, test.config), facts) {
				lines = append(lines, p.String())
			}
			got := strings.Join(lines, "\n")
			if test.want == "" && got != "" || !strings.Contains(got, test.want) {
				t.Errorf("problems:\n%s\nwant:\n%s", got, test.want)
			}
		})
	}
}

func TestUplink(t *testing.T) {
	got, problem := preflight.Uplink(parse(t, "").Network, goodHost())
	if problem != nil || got.Name != "eth0" || got.MTU != 1500 {
		t.Errorf("uplink %+v, problem %v", got, problem)
	}
}

package config

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// defaults is what the contract (interface.md of the design) gives for a file
// without a key.
func defaults(t *testing.T) Config {
	t.Helper()
	return Config{
		Server:   Server{Socket: "/run/zwrm/zwrmd.sock"},
		Database: Database{Path: "/var/lib/zwrm/state.db"},
		Network: Network{
			Layout:     layoutOf(t, "172.16.0.0/16"),
			Firewall:   Iptables,
			OnShutdown: ShutdownClean,
			EgressDeny: []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")},
			Pool:       64,
			Bridge:     Bridge{Name: "zwrmd0", Subnet: netip.MustParsePrefix("10.0.0.0/16")},
		},
		VMM:    VMM{Driver: "auto", UIDBase: 1879048192},
		Images: Images{Dir: "/var/lib/zwrm/images"},
	}
}

// fullFile sets every key, and none to its default where another value is allowed.
const fullFile = `
[server]
socket = "/tmp/z.sock"
listen = "127.0.0.1:8080"
token_file = "/etc/zwrm/token"
hosts = ["vms.example.com"]
[database]
driver = "sqlite"
path = "/srv/state.db"
[network]
subnet = "10.20.0.0/20"
external_interface = "ens3"
firewall = "iptables"
on_shutdown = "keep"
egress_deny = ["169.254.0.0/16", "10.9.0.0/16"]
host_access = ["udp/53", "tcp/3128"]
dns = ["1.1.1.1", "9.9.9.9"]
mtu = 1400
pool = 3
[network.bridge]
enabled = true
name = "private0"
subnet = "10.1.0.0/24"
[vmm]
driver = "qemu"
uid_base = 2000000000
[images]
dir = "/srv/images"
`

// fullEnv sets what fullFile sets.
func fullEnv() []string {
	return []string{
		"ZWRM_SERVER_SOCKET=/tmp/z.sock",
		"ZWRM_SERVER_LISTEN=127.0.0.1:8080",
		"ZWRM_SERVER_TOKEN_FILE=/etc/zwrm/token",
		"ZWRM_DATABASE_DRIVER=sqlite",
		"ZWRM_DATABASE_PATH=/srv/state.db",
		"ZWRM_SERVER_HOSTS=VMs.example.com",
		"ZWRM_NETWORK_SUBNET=10.20.0.0/20",
		"ZWRM_NETWORK_EXTERNAL_INTERFACE=ens3",
		"ZWRM_NETWORK_FIREWALL=iptables",
		"ZWRM_NETWORK_ON_SHUTDOWN=keep",
		"ZWRM_NETWORK_EGRESS_DENY=169.254.0.0/16, 10.9.0.0/16",
		"ZWRM_NETWORK_HOST_ACCESS=udp/53,tcp/3128",
		"ZWRM_NETWORK_DNS=1.1.1.1,9.9.9.9",
		"ZWRM_NETWORK_MTU=1400",
		"ZWRM_NETWORK_POOL=3",
		"ZWRM_NETWORK_BRIDGE_ENABLED=true",
		"ZWRM_NETWORK_BRIDGE_NAME=private0",
		"ZWRM_NETWORK_BRIDGE_SUBNET=10.1.0.0/24",
		"ZWRM_VMM_DRIVER=qemu",
		"ZWRM_VMM_UID_BASE=2000000000",
		"ZWRM_IMAGES_DIR=/srv/images",
	}
}

func full(t *testing.T) Config {
	t.Helper()
	return Config{
		Server:   Server{Socket: "/tmp/z.sock", Listen: "127.0.0.1:8080", TokenFile: "/etc/zwrm/token", Hosts: []string{"vms.example.com"}},
		Database: Database{Path: "/srv/state.db"},
		Network: Network{
			Layout:            layoutOf(t, "10.20.0.0/20"),
			ExternalInterface: "ens3",
			Firewall:          Iptables,
			OnShutdown:        ShutdownKeep,
			EgressDeny:        []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("10.9.0.0/16")},
			HostAccess:        []model.Service{{Protocol: model.UDP, Port: 53}, {Protocol: model.TCP, Port: 3128}},
			DNS:               []netip.Addr{netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("9.9.9.9")},
			MTU:               1400,
			Pool:              3,
			Bridge:            Bridge{Enabled: true, Name: "private0", Subnet: netip.MustParsePrefix("10.1.0.0/24")},
		},
		VMM:    VMM{Driver: "qemu", UIDBase: 2000000000},
		Images: Images{Dir: "/srv/images"},
	}
}

func layoutOf(t *testing.T, subnet string) ipam.Layout {
	t.Helper()
	layout, err := ipam.NewLayout(netip.MustParsePrefix(subnet))
	if err != nil {
		t.Fatal(err)
	}
	return layout
}

// with returns the default configuration changed.
func with(t *testing.T, change func(*Config)) Config {
	t.Helper()
	config := defaults(t)
	change(&config)
	return config
}

func TestParse(t *testing.T) {
	tests := []struct {
		name string
		text string
		env  []string
		want Config
	}{
		{name: "empty file", want: defaults(t)},
		{name: "comments only", text: "# nothing\n\n", want: defaults(t)},
		{name: "empty sections", text: "[network]\n[network.bridge]\n[vmm]\n", want: defaults(t)},
		{name: "default file", text: Default(), want: defaults(t)},
		{name: "every key in the file", text: fullFile, want: full(t)},
		{name: "every key in the environment", env: fullEnv(), want: full(t)},
		{name: "environment over the file", text: fullFile, env: []string{"ZWRM_NETWORK_SUBNET=10.32.0.0/30"},
			want: func() Config { c := full(t); c.Network.Layout = layoutOf(t, "10.32.0.0/30"); return c }()},
		{name: "environment mends the file", text: "network.subnet = \"none\"", env: []string{"ZWRM_NETWORK_SUBNET=172.16.0.0/16"},
			want: defaults(t)},
		{name: "empty variable empties a list", env: []string{"ZWRM_NETWORK_EGRESS_DENY="},
			want: with(t, func(c *Config) { c.Network.EgressDeny = nil })},
		{name: "empty list", text: "[network]\negress_deny = []\n",
			want: with(t, func(c *Config) { c.Network.EgressDeny = nil })},
		{name: "variables of others", env: []string{"ZWRM_SOCKET=/run/x.sock", "ZWRM_NETWORK=1", "ZWRM_COLOR_MODE=no",
			"XZWRM_NETWORK_X=1", "ZWRM_network_x=1", "ZWRM_", "HOME=/root", "", "="}, want: defaults(t)},
		{name: "dotted keys and inline tables", text: "network.bridge.enabled = true\nvmm = {driver = \"qemu\"}\n",
			want: with(t, func(c *Config) { c.Network.Bridge.Enabled, c.VMM.Driver = true, "qemu" })},
		{name: "bridge may overlap while it is off", text: "[network.bridge]\nsubnet = \"172.16.0.0/24\"\n",
			want: with(t, func(c *Config) { c.Network.Bridge.Subnet = netip.MustParsePrefix("172.16.0.0/24") })},
		{name: "smallest and largest ranges", text: "network.subnet = \"10.0.0.0/8\"\nnetwork.bridge.subnet = \"11.0.0.0/30\"\nnetwork.bridge.enabled = true\n",
			want: with(t, func(c *Config) {
				c.Network.Layout = layoutOf(t, "10.0.0.0/8")
				c.Network.Bridge.Enabled, c.Network.Bridge.Subnet = true, netip.MustParsePrefix("11.0.0.0/30")
			})},
		{name: "least MTU", text: "network.mtu = 576", want: with(t, func(c *Config) { c.Network.MTU = 576 })},
		{name: "greatest MTU", text: "network.mtu = 65521", want: with(t, func(c *Config) { c.Network.MTU = 65521 })},
		{name: "longest interface name", text: `network.external_interface = "abcdefghijklmno"`,
			want: with(t, func(c *Config) { c.Network.ExternalInterface = "abcdefghijklmno" })},
		{name: "interface name that is not ASCII", text: `network.external_interface = "é+1"`,
			want: with(t, func(c *Config) { c.Network.ExternalInterface = "é+1" })},
		{name: "deny all", text: `network.egress_deny = ["0.0.0.0/0", "192.0.2.7/32"]`,
			want: with(t, func(c *Config) {
				c.Network.EgressDeny = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("192.0.2.7/32")}
			})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.text, tt.env)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestParseListen(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:8080", "[::1]:1", ":65535", "localhost:80", "Host-1.example.org:80"} {
		t.Run(listen, func(t *testing.T) {
			config, err := Parse("", []string{"ZWRM_SERVER_LISTEN=" + listen, "ZWRM_SERVER_TOKEN_FILE=/t"})
			if err != nil {
				t.Fatal(err)
			}
			if config.Server.Listen != listen {
				t.Errorf("listen is %q", config.Server.Listen)
			}
		})
	}
}

// TestSubnetLengths holds the message about the length, which the bridge's
// subnet shares, against the layout's own opinion.
func TestSubnetLengths(t *testing.T) {
	for bits := range 33 {
		prefix := netip.PrefixFrom(netip.IPv4Unspecified(), bits)
		_, layoutErr := ipam.NewLayout(prefix)
		_, err := Parse("", []string{"ZWRM_NETWORK_SUBNET=" + prefix.String()})
		if (err == nil) != (layoutErr == nil) {
			t.Errorf("%s: Parse says %v, NewLayout %v", prefix, err, layoutErr)
		}
		if err != nil && strings.Contains(err.Error(), layoutErr.Error()) {
			t.Errorf("%s: %v is not in the words of this package", prefix, err)
		}
	}
}

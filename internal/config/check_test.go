package config

import (
	"fmt"
	"testing"
)

func TestWrongAddresses(t *testing.T) {
	const form = `not an IPv4 network; use the form ADDRESS/LENGTH, as in "172.16.0.0/16"`
	testProblems(t, []problemCase{
		{name: "subnet with host bits", text: `network.subnet = "172.16.0.1/16"`, want: []string{`network.subnet = "172.16.0.1/16": not a network address; use "172.16.0.0/16"`}},
		{name: "subnet without length", text: `network.subnet = "172.16.0.0"`, want: []string{`network.subnet = "172.16.0.0": ` + form}},
		{name: "empty subnet", text: `network.subnet = ""`, want: []string{`network.subnet = "": ` + form}},
		{name: "IPv6 subnet", text: `network.subnet = "fd00::/64"`, want: []string{`network.subnet = "fd00::/64": not IPv4; use an IPv4 network, as in "172.16.0.0/16"`}},
		{name: "IPv4 in IPv6 subnet", text: `network.subnet = "::ffff:10.0.0.0/104"`, want: []string{`network.subnet = "::ffff:10.0.0.0/104": not IPv4; use an IPv4 network, as in "172.16.0.0/16"`}},
		{name: "subnet too long", text: `network.subnet = "172.16.0.0/31"`, want: []string{`network.subnet = "172.16.0.0/31": longer than /30, which is too small; use a range such as "172.16.0.0/16"`}},
		{name: "subnet too short", text: `network.subnet = "0.0.0.0/0"`, want: []string{`network.subnet = "0.0.0.0/0": shorter than /8: no private range is that large; use a range such as "172.16.0.0/16"`}},
		{name: "bridge with host bits", text: `network.bridge.subnet = "10.0.0.1/16"`, want: []string{`network.bridge.subnet = "10.0.0.1/16": not a network address; use "10.0.0.0/16"`}},
		{name: "IPv6 bridge", text: `network.bridge.subnet = "fd00::/64"`, want: []string{`network.bridge.subnet = "fd00::/64": not IPv4; use an IPv4 network, as in "172.16.0.0/16"`}},
		{name: "bridge too long", text: `network.bridge.subnet = "10.0.0.0/32"`, want: []string{`network.bridge.subnet = "10.0.0.0/32": longer than /30, which is too small; use a range such as "10.0.0.0/16"`}},
		{name: "bridge overlaps", text: "network.bridge.enabled = true\nnetwork.bridge.subnet = \"172.16.4.0/24\"", want: []string{`network.bridge.subnet = "172.16.4.0/24": overlaps network.subnet "172.16.0.0/16"; use a range outside of it`}},
		{name: "bridge holds the subnet", text: "network.bridge.enabled = true\nnetwork.bridge.subnet = \"172.0.0.0/8\"", want: []string{`network.bridge.subnet = "172.0.0.0/8": overlaps network.subnet "172.16.0.0/16"; use a range outside of it`}},
		{name: "egress", text: `network.egress_deny = ["10.0.0.0/8", "10.0.0.1", "fd00::/8", "10.1.1.1/24"]`, want: []string{
			`network.egress_deny[1] = "10.0.0.1": ` + form,
			`network.egress_deny[2] = "fd00::/8": not IPv4; use an IPv4 network, as in "172.16.0.0/16"`,
			`network.egress_deny[3] = "10.1.1.1/24": not a network address; use "10.1.1.0/24"`}},
		{name: "egress twice", text: `network.egress_deny = ["10.0.0.0/8", "10.0.0.0/8"]`, want: []string{`network.egress_deny[1] = "10.0.0.0/8": the same as network.egress_deny[0]; remove one of them`}},
		{name: "resolvers", text: `network.dns = ["dns.example", "2606:4700::1111"]`, want: []string{
			`network.dns[0] = "dns.example": not an IPv4 address; use the form "1.1.1.1"`,
			`network.dns[1] = "2606:4700::1111": not an IPv4 address; use the form "1.1.1.1"`}},
		{name: "three resolvers", text: `network.dns = ["1.1.1.1", "8.8.8.8", "9.9.9.9"]`, want: []string{
			`network.dns = ["1.1.1.1", "8.8.8.8", "9.9.9.9"]: 3 resolvers, where the kernel's ip= argument has room for 2; keep 2 of them`}},
		{name: "resolver twice", text: `network.dns = ["1.1.1.1", "1.1.1.1"]`, want: []string{`network.dns[1] = "1.1.1.1": the same as network.dns[0]; remove one of them`}},
	})
}

func TestWrongListen(t *testing.T) {
	const form = `; use the form HOST:PORT, as in "127.0.0.1:8080" or "[::1]:8080"`
	const env = "ZWRM_SERVER_TOKEN_FILE=/etc/zwrm/token"
	tests := map[string]string{
		"8080":              `not a TCP address`,
		"127.0.0.1":         `not a TCP address`,
		"::1:8080":          `not a TCP address`,
		"127.0.0.1:":        `has no port between 1 and 65535`,
		"127.0.0.1:0":       `has no port between 1 and 65535`,
		"127.0.0.1:http":    `has no port between 1 and 65535`,
		"127.0.0.1:65536":   `has no port between 1 and 65535`,
		"256.0.0.1:80":      `"256.0.0.1" is not a host`,
		"my host:80":        `"my host" is not a host`,
		"http://x:80":       `not a TCP address`,
		"unix/zwrm.sock:80": `"unix/zwrm.sock" is not a host`,
	}
	for listen, what := range tests {
		testProblems(t, []problemCase{{name: listen, text: `server.listen = "` + listen + `"`, env: []string{env},
			want: []string{`server.listen = "` + listen + `": ` + what + form}}})
	}
	testProblems(t, []problemCase{
		{name: "no token", text: `server.listen = ":8080"`, want: []string{`server.listen = ":8080": needs a token; set server.token_file to the file that holds it, or listen to ""`}},
		{name: "token not absolute", text: "server.listen = \":8080\"\nserver.token_file = \"token\"", want: []string{`server.token_file = "token": not an absolute path; begin it with "/"`}},
	})
}

func TestWrongInterfaces(t *testing.T) {
	const mend = `; name an interface that "ip link" shows, or use "" for that of the default route`
	const cannot = `, which an interface's name cannot have here`
	tests := []struct{ name, shown, what string }{
		{`sixteen-letters-`, `"sixteen-letters-"`, `has 16 bytes, where an interface's name has at most 15`},
		{`éééééééé`, `"éééééééé"`, `has 16 bytes, where an interface's name has at most 15`},
		{`.`, `"."`, `a name that the kernel gives no interface`},
		{`..`, `".."`, `a name that the kernel gives no interface`},
		{`all`, `"all"`, `a name that the kernel gives no interface`},
		{`default`, `"default"`, `a name that the kernel gives no interface`},
		{`zvm`, `"zvm"`, `begins with "zvm", as the TAPs of VMs do`},
		{`zvm12`, `"zvm12"`, `begins with "zvm", as the TAPs of VMs do`},
		{`eth+`, `"eth+"`, `ends with "+", which iptables takes for a wildcard`},
		{`+`, `"+"`, `ends with "+", which iptables takes for a wildcard`},
		{`a/b`, `"a/b"`, `has "/"` + cannot},
		{`a:1`, `"a:1"`, `has ":"` + cannot},
		{`a b`, `"a b"`, `has " "` + cannot},
		{`eth%d`, `"eth%d"`, `has "%"` + cannot},
		{`a'b`, `"a'b"`, `has "'"` + cannot},
		{"a\tb", `"a\tb"`, `has "\t"` + cannot},
		{"a\nb", `"a\nb"`, `has "\n"` + cannot},
		{"a\x00b", `"a\x00b"`, `has "\x00"` + cannot},
		{"a\u00a0b", `"a\u00a0b"`, `has "\xa0"` + cannot},
		{`a"b`, `"a\"b"`, `has "\""` + cannot},
		{`a\b`, `"a\\b"`, `has "\\"` + cannot},
	}
	for _, tt := range tests {
		testProblems(t, []problemCase{
			{name: "external " + tt.shown, env: []string{"ZWRM_NETWORK_EXTERNAL_INTERFACE=" + tt.name}, want: []string{
				`network.external_interface = ` + tt.shown + ` (ZWRM_NETWORK_EXTERNAL_INTERFACE): ` + tt.what + mend}},
			{name: "bridge " + tt.shown, env: []string{"ZWRM_NETWORK_BRIDGE_NAME=" + tt.name}, want: []string{
				`network.bridge.name = ` + tt.shown + ` (ZWRM_NETWORK_BRIDGE_NAME): ` + tt.what + `; use a name such as "zwrmd0"`}},
		})
	}
	testProblems(t, []problemCase{
		{name: "bridge without a name", text: `network.bridge.name = ""`, want: []string{`network.bridge.name = "": no interface has an empty name; use a name such as "zwrmd0"`}},
		{name: "bridge is the external interface", text: "network.bridge.name = \"eth0\"\nnetwork.external_interface = \"eth0\"", want: []string{
			`network.bridge.name = "eth0": the same as network.external_interface; use a name that no interface has, such as "zwrmd0"`}},
	})
}

func TestWrongChoices(t *testing.T) {
	testProblems(t, []problemCase{
		{name: "firewall", text: `network.firewall = "ufw"`, want: []string{`network.firewall = "ufw": unknown firewall; use "iptables" or "nftables"`}},
		{name: "on_shutdown", text: `network.on_shutdown = "Keep"`, want: []string{`network.on_shutdown = "Keep": unknown way to stop; use "clean" or "keep"`}},
		{name: "firecracker", text: `vmm.driver = "firecracker"`, want: []string{`vmm.driver = "firecracker": this version does not have this driver yet; use "auto" or "qemu"`}},
		{name: "cloud-hypervisor", text: `vmm.driver = "cloud-hypervisor"`, want: []string{`vmm.driver = "cloud-hypervisor": this version does not have this driver yet; use "auto" or "qemu"`}},
		{name: "uid_base of users of the host", text: `vmm.uid_base = 1000`, want: []string{`vmm.uid_base = 1000: not the first of enough uids that no account has; use 65536 to 2143289343, such as 1879048192`}},
		{name: "uid_base without room", text: `vmm.uid_base = 2143289344`, want: []string{`vmm.uid_base = 2143289344: not the first of enough uids that no account has; use 65536 to 2143289343, such as 1879048192`}},
		{name: "hosts", text: `server.hosts = ["vms.example.com:80", "192.0.2.1", "", "a", "A"]`, want: []string{
			`server.hosts[0] = "vms.example.com:80": not the name of a host; use a form such as "vms.example.com", without a port`,
			`server.hosts[1] = "192.0.2.1": not the name of a host; use a form such as "vms.example.com", without a port`,
			`server.hosts[2] = "": not the name of a host; use a form such as "vms.example.com", without a port`,
			`server.hosts[4] = "A": the same as server.hosts[3]; remove one of them`,
		}},
		{name: "vmm", text: `vmm.driver = ""`, want: []string{`vmm.driver = "": unknown driver; use "auto" or "qemu"`}},
		{name: "database", text: `database.driver = "postgres"`, want: []string{`database.driver = "postgres": unknown driver; use "sqlite"`}},
	})
}

func TestDataplanes(t *testing.T) {
	for _, want := range []Dataplane{Iptables, Nftables} {
		c, err := Parse(fmt.Sprintf("network.firewall = %q", want), nil)
		if err != nil || c.Network.Firewall != want {
			t.Errorf("firewall %q, %v; want %q", c.Network.Firewall, err, want)
		}
	}
}

func TestWrongNumbersAndPaths(t *testing.T) {
	const size = `not a size that a TAP and IPv4 can have; use 576 to 65521, or 0 for that of the external interface`
	const pool = `not a number of networks to make ahead; use 0 to 4096`
	const service = `not a service; use "tcp/PORT" or "udp/PORT" with a port from 1 to 65535`
	const path = `not an absolute path; begin it with "/"`
	testProblems(t, []problemCase{
		{name: "negative MTU", text: `network.mtu = -1`, want: []string{`network.mtu = -1: ` + size}},
		{name: "small MTU", text: `network.mtu = 575`, want: []string{`network.mtu = 575: ` + size}},
		{name: "large MTU", text: `network.mtu = 65522`, want: []string{`network.mtu = 65522: ` + size}},
		{name: "negative pool", text: `network.pool = -1`, want: []string{`network.pool = -1: ` + pool}},
		{name: "large pool", text: `network.pool = 4097`, want: []string{`network.pool = 4097: ` + pool}},
		{name: "services", text: `network.host_access = ["icmp", "udp/53", "tcp/0", "tcp/65536", "53"]`, want: []string{
			`network.host_access[0] = "icmp": ` + service,
			`network.host_access[2] = "tcp/0": ` + service,
			`network.host_access[3] = "tcp/65536": ` + service,
			`network.host_access[4] = "53": ` + service}},
		{name: "service twice", text: `network.host_access = ["udp/53", "tcp/53", "udp/053"]`, want: []string{`network.host_access[2] = "udp/053": the same as network.host_access[0]; remove one of them`}},
		{name: "paths", text: "server.socket = \"\"\ndatabase.path = \"state.db\"\nimages.dir = \"./images\"\n", want: []string{
			`server.socket = "": ` + path,
			`database.path = "state.db": ` + path,
			`images.dir = "./images": ` + path}},
	})
}

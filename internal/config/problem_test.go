package config

import (
	"errors"
	"strings"
	"testing"
)

// problemCase is a file, or an environment, and the lines that it is refused with.
type problemCase struct {
	name string
	text string
	env  []string
	want []string
}

func testProblems(t *testing.T, cases []problemCase) {
	t.Helper()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			config, err := Parse(tt.text, tt.env)
			var problems *Errors
			if !errors.As(err, &problems) {
				t.Fatalf("error is %v of type %T", err, err)
			}
			if got, want := err.Error(), strings.Join(tt.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if config.Server.Socket != "" {
				t.Error("a refused file gives a configuration")
			}
		})
	}
}

const removeIt = `remove it; "zwrmd --generate-config" prints all that is known`

func TestUnknownKeys(t *testing.T) {
	testProblems(t, []problemCase{
		{name: "letter too many", text: `network.subnett = 1`, want: []string{`network.subnett: unknown key; did you mean "network.subnet"?`}},
		{name: "letters swapped", text: `network.bridge.nmae = 1`, want: []string{`network.bridge.nmae: unknown key; did you mean "network.bridge.name"?`}},
		{name: "swapped in a short key", text: `network.mut = 1`, want: []string{`network.mut: unknown key; did you mean "network.mtu"?`}},
		{name: "other separator", text: `network.external-interface = ""`, want: []string{`network.external-interface: unknown key; did you mean "network.external_interface"?`}},
		{name: "capital letter", text: `network.Subnet = ""`, want: []string{`network.Subnet: unknown key; did you mean "network.subnet"?`}},
		{name: "part of a name", text: `network.shutdown = ""`, want: []string{`network.shutdown: unknown key; did you mean "network.on_shutdown"?`}},
		{name: "section above", text: `network.enabled = true`, want: []string{`network.enabled: unknown key; did you mean "network.bridge.enabled"?`}},
		{name: "section below", text: `network.bridge.mtu = 1`, want: []string{`network.bridge.mtu: unknown key; did you mean "network.mtu"?`}},
		{name: "two of the name", text: `subnet = ""`, want: []string{`subnet: unknown key; ` + removeIt}},
		{name: "name of a foreign section", text: `images.path = ""`, want: []string{`images.path: unknown key; ` + removeIt}},
		{name: "nothing near", text: `network.ipv6_prefix = ""`, want: []string{`network.ipv6_prefix: unknown key; ` + removeIt}},
		{name: "value is not printed", text: `server.password = "secret"`, want: []string{`server.password: unknown key; ` + removeIt}},
		{name: "section", text: "[netwrok]\nsubnet = 1\nmtu = 2\n[netwrok.bridge]\nname = 3\n", want: []string{`netwrok: unknown section; did you mean "network"?`}},
		{name: "section without its parent", text: "[bridge]\nenabled = true\n", want: []string{`bridge: unknown section; did you mean "network.bridge"?`}},
		{name: "section below", text: "[network.brigde]\nenabled = true\n", want: []string{`network.brigde: unknown section; did you mean "network.bridge"?`}},
		{name: "section with nothing near", text: "[logging.file]\npath = \"\"\n", want: []string{`logging: unknown section; ` + removeIt}},
		{name: "list of unknown tables", text: "[[peers]]\na = 1\n[[peers]]\na = 2\n", want: []string{`peers: unknown key; ` + removeIt}},
		{name: "dot within a name", text: `"network.subnet" = ""`, want: []string{`"network.subnet": unknown key; ` + removeIt}},
		{name: "line break within a name", text: `"a\nb" = ""`, want: []string{`"a\nb": unknown key; ` + removeIt}},
		{name: "long name", text: strings.Repeat("x", 1000) + ` = ""`, want: []string{strings.Repeat("x", 120) + `...: unknown key; ` + removeIt}},
	})
}

func TestWrongTypes(t *testing.T) {
	testProblems(t, []problemCase{
		{name: "integer for string", text: `network.subnet = 8`, want: []string{`network.subnet = 8: an integer, not a string; put it in quotes`}},
		{name: "boolean for string", text: `network.firewall = true`, want: []string{`network.firewall = true: a boolean, not a string; put it in quotes`}},
		{name: "string for integer", text: `network.mtu = "1500"`, want: []string{`network.mtu = "1500": a string, not an integer; use digits without quotes`}},
		{name: "float for integer", text: `network.mtu = 1500.5`, want: []string{`network.mtu = 1500.5: a float, not an integer; use digits without quotes`}},
		{name: "string for boolean", text: `network.bridge.enabled = "true"`, want: []string{`network.bridge.enabled = "true": a string, not a boolean; use true or false`}},
		{name: "string for list", text: `network.dns = "1.1.1.1"`, want: []string{`network.dns = "1.1.1.1": a string, not a list of strings; use the form ["a", "b"]`}},
		{name: "list for string", text: `network.subnet = ["a", 1, [true]]`, want: []string{`network.subnet = ["a", 1, [true]]: a list, not a string; put it in quotes`}},
		{name: "items of a list", text: `network.host_access = [1, "udp/53", 2.5, "icmp"]`, want: []string{
			`network.host_access[0] = 1: an integer, not a string; put it in quotes`,
			`network.host_access[2] = 2.5: a float, not a string; put it in quotes`,
			`network.host_access[3] = "icmp": not a service; use "tcp/PORT" or "udp/PORT" with a port from 1 to 65535`}},
		{name: "tables for list", text: "[[network.dns]]\naddress = 1\n", want: []string{`network.dns: a list of tables, not a list of strings; use the form ["a", "b"]`}},
		{name: "date for string", text: `images.dir = 2026-01-02`, want: []string{`images.dir: a date or time, not a string; put it in quotes`}},
		{name: "table for string", text: "[network.subnet]\nlength = 16\n", want: []string{`network.subnet: a table, not a string; put it in quotes`}},
		{name: "value for section", text: `network = 5`, want: []string{`network = 5: an integer, not a section; write its keys below a line [network]`}},
		{name: "value for inner section", text: `network.bridge = true`, want: []string{`network.bridge = true: a boolean, not a section; write its keys below a line [network.bridge]`}},
		{name: "tables for section", text: "[[network]]\nsubnet = 1\n", want: []string{`network: a list of tables, not a section; write its keys below a line [network]`}},
		{name: "long value", text: `network.mtu = "` + strings.Repeat("é", 500) + `"`, want: []string{
			`network.mtu = "` + strings.Repeat("é", 59) + `...: a string, not an integer; use digits without quotes`}},
	})
}

func TestSyntax(t *testing.T) {
	const mend = `; "zwrmd --generate-config" prints a file of the right form`
	testProblems(t, []problemCase{
		{name: "no quotes", text: "[network]\nsubnet = 172.16.0.0/16\n", want: []string{`line 2: Invalid float value: "172.16.0.0"` + mend}},
		{name: "key twice", text: "[network]\nmtu = 0\nmtu = 1\n", want: []string{`line 3: Key 'network.mtu' has already been defined.` + mend}},
		{name: "nothing else is said", text: "[network]\nnope = 1\nmtu = \n", env: []string{"ZWRM_NETWORK_NOPE=1"},
			want: []string{`line 3: expected value but found '\n' instead` + mend}},
		{name: "string without end", text: "x = \"\n", want: []string{`line 1: strings cannot contain newlines` + mend}},
		{name: "escaped line break", text: "x = \"\\\n\"", want: []string{`line 2: invalid escape in string '\\n'` + mend}},
		{name: "not UTF-8", text: "\n\xff", want: []string{`line 2: invalid UTF-8 byte: 0xff` + mend}},
		{name: "integer of more than 64 bits", text: "network.mtu = 99999999999999999999", want: []string{`line 1: 99999999999999999999 is out of range for int64` + mend}},
	})
}

func TestEnvironmentProblems(t *testing.T) {
	testProblems(t, []problemCase{
		{name: "unknown", env: []string{"ZWRM_NETWORK_SUBNETT=secret"}, want: []string{`ZWRM_NETWORK_SUBNETT: unknown variable; did you mean "ZWRM_NETWORK_SUBNET"?`}},
		{name: "unknown of inner section", env: []string{"ZWRM_NETWORK_BRIDGE_ENABLE=1"}, want: []string{`ZWRM_NETWORK_BRIDGE_ENABLE: unknown variable; did you mean "ZWRM_NETWORK_BRIDGE_ENABLED"?`}},
		{name: "unknown, nothing near", env: []string{"ZWRM_VMM_FIRMWARE=1", "ZWRM_IMAGES_"}, want: []string{
			`ZWRM_VMM_FIRMWARE: unknown variable; ` + removeIt,
			`ZWRM_IMAGES_: unknown variable; ` + removeIt}},
		{name: "line break in the name", env: []string{"ZWRM_VMM_\"\n=1"}, want: []string{`ZWRM_VMM_"\n: unknown variable; ` + removeIt}},
		{name: "not a boolean", env: []string{"ZWRM_NETWORK_BRIDGE_ENABLED=on"}, want: []string{`network.bridge.enabled = "on" (ZWRM_NETWORK_BRIDGE_ENABLED): not a boolean; use true or false`}},
		{name: "not an integer", env: []string{"ZWRM_NETWORK_MTU=1.5k"}, want: []string{`network.mtu = "1.5k" (ZWRM_NETWORK_MTU): not an integer; use digits without quotes`}},
		{name: "wrong value", text: `network.subnet = "10.0.0.0/16"`, env: []string{"ZWRM_NETWORK_SUBNET=172.16.0.1/16"}, want: []string{
			`network.subnet = "172.16.0.1/16" (ZWRM_NETWORK_SUBNET): not a network address; use "172.16.0.0/16"`}},
		{name: "wrong item", env: []string{"ZWRM_NETWORK_EGRESS_DENY=10.0.0.0/8,,10.9.0.1/16"}, want: []string{
			`network.egress_deny[1] = "" (ZWRM_NETWORK_EGRESS_DENY): not an IPv4 network; use the form ADDRESS/LENGTH, as in "172.16.0.0/16"`,
			`network.egress_deny[2] = "10.9.0.1/16" (ZWRM_NETWORK_EGRESS_DENY): not a network address; use "10.9.0.0/16"`}},
	})
}

func TestEveryProblemIsReported(t *testing.T) {
	testProblems(t, []problemCase{{
		name: "many",
		text: "colour = 1\n[vmm]\ndriver = 3\n[network]\nmtu = 1\nsubnet = \"172.16.0.1/16\"\n[network.bridge]\nenabled = true\nsubnet = \"172.16.0.0/16\"\n[images]\ndir = \"images\"\n",
		env:  []string{"ZWRM_NETWORK_NOPE=1", "ZWRM_SERVER_SOCKET=zwrmd.sock"},
		want: []string{
			`colour: unknown key; ` + removeIt,
			`vmm.driver = 3: an integer, not a string; put it in quotes`,
			`ZWRM_NETWORK_NOPE: unknown variable; ` + removeIt,
			`server.socket = "zwrmd.sock" (ZWRM_SERVER_SOCKET): not an absolute path; begin it with "/"`,
			`network.subnet = "172.16.0.1/16": not a network address; use "172.16.0.0/16"`,
			`network.mtu = 1: not a size that a TAP and IPv4 can have; use 576 to 65521, or 0 for that of the external interface`,
			`images.dir = "images": not an absolute path; begin it with "/"`,
		},
	}, {
		name: "a value of a wrong type is not compared with others",
		text: "[server]\nlisten = \":80\"\ntoken_file = 1\n[network]\nsubnet = 1\n[network.bridge]\nenabled = true\nsubnet = \"172.16.0.0/16\"\n",
		want: []string{
			`server.token_file = 1: an integer, not a string; put it in quotes`,
			`network.subnet = 1: an integer, not a string; put it in quotes`,
		},
	}})
}

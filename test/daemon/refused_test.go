package daemon_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"zwrm/test/zwrmtest"
)

// The exit statuses of zwrmd.
const (
	failed = 1 // the host stands in the way
	usage  = 2 // bad flags or configuration
)

// refusal is something that zwrmd must not start with.
type refusal struct {
	name     string
	settings zwrmtest.Settings
	host     string                                 // commands that prepare the host
	prepare  func(t *testing.T, d *zwrmtest.Daemon) // what else is prepared
	status   int                                    // exit status
	says     []string                               // parts of what it says
}

// badConfigurations are wrong on any host.
func badConfigurations() []refusal {
	set := func(key, value string) zwrmtest.Settings { return zwrmtest.Settings{key: value} }
	subnet := func(value string) zwrmtest.Settings { return set("network.subnet", `"`+value+`"`) }
	return []refusal{
		{name: "subnet is IPv6", settings: subnet("fd00::/64"), says: []string{`network.subnet = "fd00::/64"`, "not IPv4"}},
		{name: "subnet is no network", settings: subnet("172.16.0.1/16"),
			says: []string{`network.subnet = "172.16.0.1/16": not a network address`, `use "172.16.0.0/16"`}},
		{name: "subnet is nonsense", settings: subnet("many"), says: []string{`network.subnet = "many": not an IPv4 network`}},
		{name: "subnet is too long", settings: subnet("172.16.0.0/31"), says: []string{"longer than /30"}},
		{name: "subnet overlaps that of private networking",
			settings: zwrmtest.Settings{"network.subnet": `"10.0.0.0/8"`, "network.bridge.enabled": "true"},
			says:     []string{"network.bridge.subnet", `overlaps network.subnet "10.0.0.0/8"`}},
		{name: "unknown key", settings: set("network.subnets", `"172.16.0.0/16"`), says: []string{"network.subnets: unknown key", "network.subnet"}},
		{name: "unknown section", settings: set("networks.subnet", `"172.16.0.0/16"`), says: []string{"networks: unknown section", "network"}},
		{name: "wrong type", settings: set("network.mtu", `"1500"`), says: []string{`network.mtu = "1500": a string, not an integer`}},
		{name: "unknown firewall", settings: set("network.firewall", `"pf"`), says: []string{`network.firewall = "pf": unknown firewall`}},
		{name: "environment", says: []string{"network.subnet", "ZWRM_NETWORK_SUBNET", "not IPv4"},
			prepare: func(_ *testing.T, d *zwrmtest.Daemon) {
				d.Prepare = func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "ZWRM_NETWORK_SUBNET=fd00::/64") }
			}},
		{name: "several at once", says: []string{"network.mtu = 1", "network.on_shutdown", "network.host_access[0]"},
			settings: zwrmtest.Settings{"network.mtu": "1", "network.on_shutdown": `"burn"`, "network.host_access": `["ssh"]`}},
		{name: "no file", says: []string{"no such file", "zwrmd --generate-config"},
			prepare: func(t *testing.T, d *zwrmtest.Daemon) { must(t, os.Remove(d.Config)) }},
	}
}

// badHosts are hosts that zwrmd cannot do its work on.
func badHosts() []refusal {
	return []refusal{
		{name: "subnet overlaps an address", settings: zwrmtest.Settings{"network.subnet": `"192.0.2.0/24"`},
			says: []string{"network.subnet", `overlaps address 192.0.2.1/24 of interface "eth0"`}},
		{name: "subnet overlaps a route", host: "ip route add 172.16.9.0/24 via 192.0.2.2",
			says: []string{"network.subnet", `overlaps the route to 172.16.9.0/24 by "eth0"`}},
		{name: "subnet of private networking overlaps an address", settings: private(), host: "ip address add 10.0.7.1/24 dev eth0",
			says: []string{"network.bridge.subnet", "overlaps address 10.0.7.1/24"}},
		{name: "interface does not exist", settings: zwrmtest.Settings{"network.external_interface": `"wan7"`},
			says: []string{`network.external_interface = "wan7"`, "no interface of this name"}},
		{name: "no default route", settings: zwrmtest.Settings{"network.external_interface": `""`}, host: "ip route del default",
			says: []string{"network.external_interface", "no default route"}},
		{name: "no iptables", prepare: withPath(func(*testing.T, string) {}),
			says: []string{"network.firewall", `find program "iptables"`, "apt-get install iptables"}},
		{name: "no TUN", prepare: inOwnMounts("mount -t tmpfs tmpfs /dev/net"),
			says: []string{"/dev/net/tun", "no such file", "modprobe tun"}},
		{name: "not root", prepare: asNobody, says: []string{"does not run as root", "run it as root"}},
		{name: "kernel without devgroup", prepare: withPath(withoutDevgroup),
			says: []string{"network.firewall", `match "devgroup"`, "CONFIG_NETFILTER_XT_MATCH_DEVGROUP"}},
		{name: "foreign TAP", host: "ip tuntap add zvm7 mode tap", says: []string{`interface "zvm7"`, "not ours", "rename or delete it"}},
		{name: "foreign chain", host: "iptables -N ZWRM-PRIVATE\niptables -A ZWRM-PRIVATE -j ACCEPT",
			says: []string{`chain "ZWRM-PRIVATE"`, `table "filter"`, "not ZWRM's", "rename it"}},
		{name: "foreign chain of IPv6", host: "ip6tables -t raw -N ZWRM-RAW\nip6tables -t raw -A ZWRM-RAW -j ACCEPT",
			says: []string{`chain "ZWRM-RAW"`, "ip6tables", "not ZWRM's"}},
		{name: "foreign table of nftables", settings: zwrmtest.Settings{"network.firewall": `"nftables"`}, host: "nft add table inet zwrm",
			says: []string{"network.firewall", `table "inet zwrm" of nftables is not ZWRM's`, "nft delete table inet zwrm"}},
		{name: "foreign bridge", settings: private(), host: "ip link add zwrmd0 type bridge",
			says: []string{`network.bridge.name = "zwrmd0"`, "not ours", "choose another name"}},
	}
}

// TestBadConfiguration: zwrmd says what is wrong, ends with status 2, or 1 when it
// was only asked to check, and has not touched anything.
func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	for _, r := range badConfigurations() {
		r.status = usage
		t.Run(r.name, func(t *testing.T) { t.Parallel(); r.check(t) })
	}
}

// TestBadHost is TestBadConfiguration for what only this host makes wrong. The exit
// status is 1.
func TestBadHost(t *testing.T) {
	t.Parallel()
	for _, r := range badHosts() {
		r.status = failed
		t.Run(r.name, func(t *testing.T) { t.Parallel(); r.check(t) })
	}
}

func (r refusal) check(t *testing.T) {
	h := zwrmtest.NewHost(t)
	h.Foreign(t)
	shell(t, h, r.host)
	d := h.NewDaemon(t, r.settings)
	if r.prepare != nil {
		r.prepare(t, d)
	}
	before := h.Dump(t)
	started, asked := d.Run(t), d.Run(t, "--check-config")
	if started.Status != r.status {
		t.Errorf("exit status %d, want %d", started.Status, r.status)
	}
	contains(t, "stderr", started.Stderr, r.says...)
	if asked.Status != failed {
		t.Errorf("--check-config: exit status %d, want %d", asked.Status, failed)
	}
	if asked.Stdout != started.Stderr || asked.Stderr != "" {
		t.Errorf("--check-config prints\n%s%s\nwhere the start says\n%s", asked.Stdout, asked.Stderr, started.Stderr)
	}
	for line := range strings.Lines(asked.Stdout) {
		if !strings.Contains(line, ": ") {
			t.Errorf("--check-config: a line that is no problem: %q", line)
		}
	}
	h.Same(t, before)
	if _, err := os.Stat(filepath.Dir(d.Database)); err == nil {
		t.Error("a database was made")
	}
}

// withPath starts zwrmd with a PATH that begins with a folder that fill has filled,
// and in which nothing else can be found that fill does not.
func withPath(fill func(t *testing.T, dir string)) func(t *testing.T, d *zwrmtest.Daemon) {
	return func(t *testing.T, d *zwrmtest.Daemon) {
		dir := t.TempDir()
		fill(t, dir)
		d.Prepare = func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "PATH="+dir) }
	}
}

// withoutDevgroup makes programs that are those of the host, with the exception
// that the kernel refuses a rule with the match devgroup, as one without
// CONFIG_NETFILTER_XT_MATCH_DEVGROUP does.
func withoutDevgroup(t *testing.T, dir string) {
	wrap(t, dir, `input=$(cat)
case $input in
*devgroup*)
	echo 'Warning: Extension devgroup revision 0 not supported, missing kernel module?' >&2
	echo "$0 v1.8.9 (nf_tables): line 3: RULE_APPEND failed (No such file or directory): rule in chain ZWRM-PROBE" >&2
	exit 4
	;;
esac
[ "$input" ] && printf '%s\n' "$input" | exec "$real" "$@"
exec "$real" "$@"`)
}

// tools are the programs that zwrmd may start for networking. It must not need the
// last ones.
func tools() []string {
	return []string{
		"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore",
		"ip", "nft", "tc", "sysctl", "modprobe", "conntrack", "bridge",
	}
}

// wrap makes a script for each of the tools that has the path of the real one in
// $real.
func wrap(t *testing.T, dir, script string) {
	t.Helper()
	for _, tool := range tools() {
		real, err := exec.LookPath(tool)
		if err != nil {
			continue
		}
		text := fmt.Sprintf("#!/bin/sh\nPATH=%s\nreal=%s\n%s\n", os.Getenv("PATH"), real, script)
		must(t, os.WriteFile(filepath.Join(dir, tool), []byte(text), 0o755))
	}
}

// inOwnMounts starts zwrmd after a command in a mount namespace of its own.
func inOwnMounts(command string) func(t *testing.T, d *zwrmtest.Daemon) {
	return func(_ *testing.T, d *zwrmtest.Daemon) {
		d.Prepare = func(cmd *exec.Cmd) {
			cmd.Args = append([]string{"sh", "-c", command + ` && exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
			cmd.Path = "/bin/sh"
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		}
	}
}

// asNobody starts a copy of zwrmd that everybody may run.
func asNobody(t *testing.T, d *zwrmtest.Daemon) {
	copied := filepath.Join(d.Host.Dir, "zwrmd")
	program, err := os.ReadFile(zwrmtest.Binary(t, "zwrmd"))
	must(t, err)
	must(t, os.WriteFile(copied, program, 0o755))
	must(t, os.Chmod(filepath.Dir(d.Config), 0o755))
	d.Prepare = func(cmd *exec.Cmd) {
		cmd.Path = copied
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

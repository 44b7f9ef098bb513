package neighbours_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"zwrm/test/zwrmtest"
)

// firewalld is the real one, with a message bus and a configuration of its own.
type firewalld struct {
	t      testing.TB // they end with it
	host   *zwrmtest.Host
	config string // folder: what is /etc/firewalld elsewhere
	bus    string // address, for DBUS_SYSTEM_BUS_ADDRESS

	broker, daemon *program
}

// busConfig is the configuration of Debian's system bus, but for the user that it
// runs as and services that it could start.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <auth>EXTERNAL</auth>
  <listen>%s</listen>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
  </policy>
  <include>%s</include>
</busconfig>
`

// startFirewalld starts a bus and firewalld in the network of a host, and returns when
// firewalld answers. Settings are lines of its configuration, as in
// "FirewallBackend=iptables". Both end with the test; the machine's own /etc and /run
// are as before.
func startFirewalld(t testing.TB, host *zwrmtest.Host, settings ...string) *firewalld {
	t.Helper()
	dir, err := os.MkdirTemp(host.Dir, "fw")
	if err != nil {
		t.Fatal(err)
	}
	f := &firewalld{t: t, host: host, config: filepath.Join(dir, "etc"), bus: "unix:path=" + filepath.Join(dir, "bus")}
	must(t, os.CopyFS(f.config, os.DirFS(unpacked(t, "etc/firewalld"))))
	f.configure(t, settings...)
	config := fmt.Sprintf(busConfig, f.bus, unpacked(t, "usr/share/dbus-1/system.d/FirewallD.conf"))
	must(t, os.WriteFile(filepath.Join(dir, "bus.conf"), []byte(config), 0o644))
	f.startBus(t)
	f.start(t)
	return f
}

// configure changes lines of the configuration, for the next start or reload.
func (f *firewalld) configure(t testing.TB, settings ...string) {
	t.Helper()
	file := filepath.Join(f.config, "firewalld.conf")
	text, err := os.ReadFile(file)
	must(t, err)
	lines := strings.Split(string(text), "\n")
	for _, setting := range settings {
		key, _, _ := strings.Cut(setting, "=")
		for i, line := range lines {
			if strings.HasPrefix(line, key+"=") {
				lines[i] = setting
			}
		}
	}
	must(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644))
}

// startBus starts the bus, and returns when it listens.
func (f *firewalld) startBus(t testing.TB) {
	t.Helper()
	socket := strings.TrimPrefix(f.bus, "unix:path=")
	_ = os.Remove(socket) // of one that was killed
	f.broker = launch(f.t, f.host, nil, "dbus-daemon", "--nofork", "--nopidfile",
		"--config-file="+filepath.Join(filepath.Dir(socket), "bus.conf"))
	eventually(t, "the bus listens", func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
}

// restartBus restarts the bus. firewalld ends without it.
func (f *firewalld) restartBus(t testing.TB) {
	t.Helper()
	f.broker.end(t, syscall.SIGKILL)
	<-f.daemon.ended
	f.startBus(t)
}

// start starts firewalld, and returns when it answers. It may not load or unload
// modules of the machine's kernel.
func (f *firewalld) start(t testing.TB) {
	t.Helper()
	f.daemon = launch(f.t, f.host, f.env(t), "setpriv", "--bounding-set=-sys_module", "--inh-caps=-sys_module",
		"/usr/bin/python3", unpacked(t, "usr/sbin/firewalld"), "--nofork", "--nopid", "--log-target=console",
		"--system-config="+f.config, "--default-config="+unpacked(t, "usr/lib/firewalld"))
	eventually(t, "firewalld answers", func() bool { return f.try(t, "--state").Status == 0 })
}

// env is what firewalld's programs need to find the bus and their files.
func (f *firewalld) env(t testing.TB) []string {
	return []string{"DBUS_SYSTEM_BUS_ADDRESS=" + f.bus, "PYTHONPATH=" + unpacked(t, "usr/lib/python3/dist-packages")}
}

// stop stops firewalld as systemd does.
func (f *firewalld) stop(t testing.TB) { f.daemon.end(t, syscall.SIGTERM) }

// kill ends firewalld as a crash does.
func (f *firewalld) kill(t testing.TB) { f.daemon.end(t, syscall.SIGKILL) }

// restart restarts firewalld.
func (f *firewalld) restart(t testing.TB) {
	t.Helper()
	f.stop(t)
	f.start(t)
}

// reload reloads the configuration.
func (f *firewalld) reload(t testing.TB) { f.cmd(t, "--reload") }

// completeReload reloads all, even what is known of connections.
func (f *firewalld) completeReload(t testing.TB) { f.cmd(t, "--complete-reload") }

// cmd runs firewall-cmd, which must succeed, and returns its answer.
func (f *firewalld) cmd(t testing.TB, args ...string) string {
	t.Helper()
	r := f.try(t, args...)
	if r.Status != 0 {
		t.Fatalf("firewall-cmd %s: exit status %d: %s", strings.Join(args, " "), r.Status, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}

// try runs firewall-cmd.
func (f *firewalld) try(t testing.TB, args ...string) zwrmtest.Result {
	t.Helper()
	command := append(f.env(t), "/usr/bin/python3", unpacked(t, "usr/bin/firewall-cmd"))
	return zwrmtest.Try(t, f.host.Namespace, "env", append(command, args...)...)
}

// rules returns all rules that are in the kernel, whoever made them.
func (f *firewalld) rules(t testing.TB) string {
	t.Helper()
	return f.host.Run(t, "nft", "-s", "list", "ruleset")
}

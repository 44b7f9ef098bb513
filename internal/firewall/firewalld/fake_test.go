package firewalld

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// arriveWithin bounds how long a test waits for what must come.
const arriveWithin = 20 * time.Second

// daemon is a message bus of its own.
type daemon struct {
	t       *testing.T
	dir     string
	address Address
	stop    func()
}

func startBus(t *testing.T) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &daemon{t: t, dir: dir, address: Address("unix:path=" + filepath.Join(dir, "bus"))}
	d.start()
	return d
}

// start starts the bus, and returns when it listens.
func (d *daemon) start() {
	d.t.Helper()
	conf := filepath.Join(d.dir, "bus.conf")
	text := fmt.Sprintf(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>%s</listen>
  <servicedir>%s</servicedir>
  <policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>`, d.address, d.dir)
	must(d.t, os.WriteFile(conf, []byte(text), 0o600))
	// Who asks for a firewalld that does not run must not have it started.
	started := filepath.Join(d.dir, "started")
	activation := fmt.Sprintf("[D-BUS Service]\nName=%s\nExec=/usr/bin/touch %s\n", service, started)
	must(d.t, os.WriteFile(filepath.Join(d.dir, "firewalld.service"), []byte(activation), 0o600))
	d.t.Cleanup(func() {
		if _, err := os.Stat(started); err == nil {
			d.t.Error("the bus was asked to start firewalld")
		}
	})
	cmd := exec.Command("dbus-daemon", "--nofork", "--nopidfile", "--print-address=1", "--config-file="+conf)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatalf("start bus: %v", err)
	}
	ended, err := start(cmd)
	if err != nil {
		d.t.Fatalf("start bus: %v", err)
	}
	d.stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		<-ended
		_ = os.Remove(filepath.Join(d.dir, "bus"))
	})
	d.t.Cleanup(d.stop)
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		d.t.Fatalf("start bus: %v", err)
	}
}

// start starts a program that ends with the test's process at the latest.
func start(cmd *exec.Cmd) (ended <-chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, end := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the kernel sends the signal when the thread ends
		defer close(end)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // a bus has no other end than being killed
		}
	}()
	return end, <-started
}

// open opens a Zone that waits for firewalld no longer than a moment.
func (d *daemon) open() *Zone {
	d.t.Helper()
	z := &Zone{bus: openBus(d.t.Context(), d.address, 300*time.Millisecond)}
	d.t.Cleanup(func() { z.Close() })
	return z
}

// fake is a firewalld without a firewall.
type fake struct {
	t    *testing.T
	conn *dbus.Conn

	mu        sync.Mutex
	zones     map[string][]string // interfaces, by zone
	targets   map[string]string   // of zones that do not have the usual one
	permanent string              // what getZoneOfInterface of the permanent configuration says
	refuse    map[string]string   // texts of errors, by method
	calls     []string
	hold      chan struct{} // calls are answered after it is closed; nil: at once
}

// firewalld starts a fake on the bus, which has zones and answers at once.
func (d *daemon) firewalld(zones map[string][]string) *fake {
	d.t.Helper()
	f := d.prepare(zones)
	f.own()
	return f
}

// prepare makes a fake that has not its name yet.
func (d *daemon) prepare(zones map[string][]string) *fake {
	d.t.Helper()
	conn, err := dbus.Connect(string(d.address))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	f := &fake{t: d.t, conn: conn, zones: map[string][]string{}, targets: map[string]string{}, refuse: map[string]string{}}
	maps.Copy(f.zones, zones)
	for _, table := range []struct {
		path    dbus.ObjectPath
		of      string
		methods map[string]any
	}{
		{path, zoneCalls, map[string]any{
			"getActiveZones": f.getActiveZones, "getZoneSettings2": f.getZoneSettings2,
			"addInterface": f.addInterface, "removeInterface": f.removeInterface,
		}},
		{config, configCalls, map[string]any{"getZoneOfInterface": f.getZoneOfInterface}},
		{path, "org.freedesktop.DBus.Properties", map[string]any{"Get": f.get}},
		{config, "org.freedesktop.DBus.Properties", map[string]any{"Get": f.get}},
	} {
		if err := conn.ExportMethodTable(table.methods, table.path, table.of); err != nil {
			d.t.Fatal(err)
		}
	}
	return f
}

// own takes firewalld's name.
func (f *fake) own() {
	f.t.Helper()
	if reply, err := f.conn.RequestName(service, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		f.t.Fatalf("take the name: %v, %v", reply, err)
	}
}

// emit sends a signal of firewalld.
func (f *fake) emit(name string, body ...any) {
	f.t.Helper()
	if err := f.conn.Emit(path, name, body...); err != nil {
		f.t.Fatal(err)
	}
}

// enter notes a call, and waits and refuses as the test wants.
func (f *fake) enter(method string, args ...string) *dbus.Error {
	f.mu.Lock()
	f.calls = append(f.calls, strings.Join(append([]string{method}, args...), " "))
	hold, text := f.hold, f.refuse[method]
	f.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if text != "" {
		return dbus.NewError(service+".Exception", []any{text})
	}
	return nil
}

func (f *fake) getActiveZones() (map[string]map[string][]string, *dbus.Error) {
	if err := f.enter("getActiveZones"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string]map[string][]string{}
	for zone, interfaces := range f.zones {
		all[zone] = map[string][]string{"interfaces": interfaces, "sources": {"192.0.2.0/24"}}
	}
	return all, nil
}

func (f *fake) getZoneSettings2(zone string) (map[string]dbus.Variant, *dbus.Error) {
	if err := f.enter("getZoneSettings2", zone); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	target := f.targets[zone]
	switch {
	case target == "none":
		return map[string]dbus.Variant{}, nil
	case target == "" && zone == "trusted":
		target = "ACCEPT"
	case target == "":
		target = "default"
	}
	return map[string]dbus.Variant{"target": dbus.MakeVariant(target), "forward": dbus.MakeVariant(true)}, nil
}

func (f *fake) addInterface(zone, name string) (string, *dbus.Error) {
	if err := f.enter("addInterface", zone, name); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.zones[zone] = append(f.zones[zone], name)
	f.emit(added, zone, name)
	return zone, nil
}

func (f *fake) removeInterface(zone, name string) (string, *dbus.Error) {
	if err := f.enter("removeInterface", zone, name); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.zones[zone] = slices.DeleteFunc(f.zones[zone], func(n string) bool { return n == name })
	f.emit(removed, zone, name)
	return zone, nil
}

func (f *fake) getZoneOfInterface(name string) (string, *dbus.Error) {
	if err := f.enter("config.getZoneOfInterface", name); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.permanent, nil
}

func (f *fake) get(of, name string) (dbus.Variant, *dbus.Error) {
	if err := f.enter("get", of, name); err != nil {
		return dbus.Variant{}, err
	}
	value, ok := map[string]any{"version": "1.3.3", "FirewallBackend": "nftables", "state": "RUNNING"}[name]
	if !ok {
		return dbus.Variant{}, dbus.NewError("org.freedesktop.DBus.Error.InvalidArgs", nil)
	}
	return dbus.MakeVariant(value), nil
}

// did returns the calls so far that change something.
func (f *fake) did() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var changes []string
	for _, call := range f.calls {
		if strings.HasPrefix(call, "addInterface") || strings.HasPrefix(call, "removeInterface") {
			changes = append(changes, call)
		}
	}
	return strings.Join(changes, ", ")
}

// count returns how many calls there were.
func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

// stall lets calls wait until the function that it returns is called.
func (f *fake) stall() (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	hold := make(chan struct{})
	f.hold = hold
	return sync.OnceFunc(func() {
		f.mu.Lock()
		f.hold = nil
		f.mu.Unlock()
		close(hold)
	})
}

// diff returns the differences as text.
func diff(t *testing.T, z *Zone) string {
	t.Helper()
	found, err := z.Diff(t.Context())
	if err != nil {
		t.Fatalf("Diff: %v", err)
	}
	var out strings.Builder
	for _, d := range found {
		fmt.Fprintf(&out, "%s: wanted %s, found %s\n", d.Object, d.Wanted, d.Found)
	}
	return out.String()
}

// await waits until Changed tells.
func await(t *testing.T, z *Zone, what string) {
	t.Helper()
	select {
	case <-z.Changed():
	case <-time.After(arriveWithin):
		t.Fatalf("%s: Changed tells nothing", what)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for timeout := time.After(arriveWithin); !holds(); {
		select {
		case <-poll.C:
		case <-timeout:
			t.Fatalf("%s: never", what)
		}
	}
}

// must reports an error that there must not be.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

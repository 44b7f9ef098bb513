package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"zwrm/internal/client"
	"zwrm/internal/host/nstest"
	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// within bounds whatever a test waits for. Guests in software on a busy machine are
// slow; on an idle one nothing takes nearly as long.
const within = 3 * time.Minute

func TestMain(m *testing.M) { nstest.Main(m) }

// world is a host with a zwrmd that has the guest image "small", and an internet
// that answers every request with the address that it came from.
type world struct {
	*zwrmtest.Host
	daemon *zwrmtest.Daemon
	client *client.Client
	rules  string // of the host, before zwrmd was ever started
}

// newWorld starts a zwrmd. prepare changes how; nil: not at all. The test defers end.
func newWorld(t *testing.T, settings zwrmtest.Settings, prepare func(cmd *exec.Cmd)) *world {
	t.Helper()
	w := &world{Host: zwrmtest.NewHost(t)}
	w.Guard(t)
	w.serve(t)
	w.Foreign(t)
	w.rules = w.Rules(t)
	w.daemon = w.NewDaemon(t, settings)
	w.daemon.Prepare = prepare
	w.daemon.Start(t)
	w.client = w.daemon.Client(t)
	w.zwrm(t, "image", "add", "small", "--kernel", zwrmtest.Image(t, "kernel"), "--initrd", zwrmtest.Image(t, "initrd"))
	return w
}

// private is the configuration in which VMs of one app reach each other.
func private() zwrmtest.Settings { return zwrmtest.Settings{"network.bridge.enabled": "true"} }

// serve starts the web server of the internet.
func (w *world) serve(t *testing.T) {
	t.Helper()
	var listener net.Listener
	var err error
	w.Outside.Do(t, func() { listener, err = net.Listen("tcp4", ":80") })
	if err != nil {
		t.Fatalf("serve the internet: %v", err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintln(out, from)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
}

// zwrm runs the command zwrm, which must succeed, and returns its answer.
func (w *world) zwrm(t *testing.T, args ...string) string {
	t.Helper()
	return w.daemon.Must(t, args...)
}

// deploy deploys an app of the image "small", waits until its guests answer, and
// returns its VMs without the attachments.
func (w *world) deploy(t *testing.T, app string, scale int) []wire.VM {
	t.Helper()
	w.zwrm(t, "deploy", app, "--image", "small", "--scale", fmt.Sprint(scale), "--wait", "--timeout", within.String())
	vms := slices.DeleteFunc(w.vms(t, app), func(vm wire.VM) bool { return vm.Attachment })
	if len(vms) != scale {
		t.Fatalf("app %q has %d VMs, want %d", app, len(vms), scale)
	}
	return vms
}

// vms returns the VMs of an app; "" stands for all apps.
func (w *world) vms(t *testing.T, app string) []wire.VM {
	t.Helper()
	vms, err := w.client.VMs(t.Context(), app)
	if err != nil {
		t.Fatalf("list VMs: %v", err)
	}
	return vms
}

// vm returns a VM by its name.
func (w *world) vm(t *testing.T, name string) wire.VM {
	t.Helper()
	for _, vm := range w.vms(t, "") {
		if vm.Name == name {
			return vm
		}
	}
	t.Fatalf("there is no VM %q", name)
	return wire.VM{}
}

// end destroys every app, stops zwrmd, and reports what is left then. After a
// failure it leaves that to the guard.
func (w *world) end(t *testing.T) {
	t.Helper()
	if t.Failed() {
		return
	}
	apps, err := w.client.Apps(t.Context())
	if err != nil {
		t.Fatalf("list apps: %v", err)
	}
	for _, app := range apps {
		w.zwrm(t, "destroy", app.Name)
	}
	if got := w.left(t); got != "" {
		t.Errorf("after every app was destroyed there is left:\n%s", got)
	}
	w.daemon.Stop(t)
	if got := w.left(t); got != "" {
		t.Errorf("after the stop there is left:\n%s", got)
	}
	if got := w.Rules(t); got != w.rules {
		t.Errorf("after the stop the rules are\n%sand were before the first start\n%s", got, w.rules)
	}
}

// left returns what there is of VMs: TAPs, processes and folders.
func (w *world) left(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(w.Run(t, "ip", "-o", "link")) {
		if strings.Contains(line, ": zvm") {
			out.WriteString(line)
		}
	}
	out.WriteString(w.processes(t))
	folders, err := filepath.Glob(filepath.Join(w.folder(), "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		out.WriteString("folder " + folder + "\n")
	}
	return out.String()
}

// folder is where zwrmd has the folders of its VMs.
func (w *world) folder() string { return filepath.Join(filepath.Dir(w.daemon.Database), "vms") }

// processes returns the processes that run in the folders of VMs, one per line.
func (w *world) processes(t *testing.T) string {
	t.Helper()
	folders, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, link := range folders {
		folder, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(folder, w.folder()) {
			continue // it has ended, or is somebody else's
		}
		command, err := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
		if err == nil {
			fmt.Fprintf(&out, "process %s in %s: %s\n", filepath.Base(filepath.Dir(link)), folder, strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	return out.String()
}

// runs reports whether there is a process of the pid, even a dead one that nobody
// has waited for.
func runs(pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return err == nil
}

// snapshot is everything that a request which fails must leave as it was.
type snapshot struct{ network, rest string }

func (w *world) snapshot(t *testing.T) snapshot {
	t.Helper()
	return snapshot{w.Dump(t), w.rest(t)}
}

// rest returns what there is beside the network.
func (w *world) rest(t *testing.T) string {
	t.Helper()
	return w.zwrm(t, "ps", "-o", "json") + w.zwrm(t, "apps", "-o", "json") + w.left(t)
}

// same reports what is not as it was.
func (w *world) same(t *testing.T, before snapshot) {
	t.Helper()
	w.Same(t, before.network)
	if after := w.rest(t); after != before.rest {
		t.Errorf("rows, TAPs, processes and folders are\n%sand were\n%s", after, before.rest)
	}
}

// eventually waits until f has no objection any more.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	if err := poll(f); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// poll calls f until it returns no error, for a bounded time.
func poll(f func() error) error {
	pause := time.NewTicker(50 * time.Millisecond)
	defer pause.Stop()
	for limit := time.After(within); ; {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-pause.C:
		case <-limit:
			return fmt.Errorf("still after %s: %w", within, err)
		}
	}
}

// contains reports an error for each text that is not there.
func contains(t *testing.T, what, text string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %q:\n%s", what, want, text)
		}
	}
}

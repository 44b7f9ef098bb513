package zwrmtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"zwrm/internal/client"
	"zwrm/internal/host/nstest"
	"zwrm/internal/ipam"
	"zwrm/internal/wire"
)

const (
	readyWithin = time.Minute // a first start tries out whether KVM works
	pollEvery   = 10 * time.Millisecond
	maxPause    = 500 * time.Millisecond // between two looks at a state that takes work to find out
)

// Settings are keys of the configuration file and their values in TOML, as in
// "network.subnet": `"172.16.0.0/24"`. The key "" is text put in front of all.
type Settings map[string]string

// Daemon is a zwrmd on a Host, with files of its own.
type Daemon struct {
	Host     *Host
	Config   string // path of the configuration file
	Socket   string // path
	Database string // path
	// Prepare changes how zwrmd is started; nil: not at all.
	Prepare func(cmd *exec.Cmd)

	process *process
}

// NewDaemon writes the configuration of a zwrmd and starts nothing.
func (h *Host) NewDaemon(t testing.TB, settings Settings) *Daemon {
	t.Helper()
	dir, err := os.MkdirTemp(h.Dir, "d")
	if err != nil {
		t.Fatalf("make folder of zwrmd: %v", err)
	}
	d := &Daemon{
		Host:     h,
		Config:   filepath.Join(dir, "config.toml"),
		Socket:   filepath.Join(dir, "sock"),
		Database: filepath.Join(dir, "state", "state.db"),
	}
	d.Configure(t, settings)
	return d
}

// Configure writes the configuration anew, for the next start.
func (d *Daemon) Configure(t testing.TB, settings Settings) {
	t.Helper()
	all := Settings{
		"server.socket":              quote(d.Socket),
		"database.path":              quote(d.Database),
		"images.dir":                 quote(filepath.Join(filepath.Dir(d.Config), "images")),
		"network.external_interface": quote(Uplink),
		"network.pool":               "0", // so that links are those of VMs
	}
	maps.Copy(all, settings)
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if key == "" {
			text.WriteString(all[key] + "\n")
		} else {
			fmt.Fprintf(&text, "%s = %s\n", key, all[key])
		}
	}
	if err := os.WriteFile(d.Config, []byte(text.String()), 0o644); err != nil {
		t.Fatalf("write configuration: %v", err)
	}
}

func quote(text string) string { return `"` + text + `"` }

// Start starts a zwrmd with the settings and returns when it is ready.
func (h *Host) Start(t testing.TB, settings Settings) *Daemon {
	t.Helper()
	d := h.NewDaemon(t, settings)
	d.Start(t)
	return d
}

// Start starts zwrmd and returns when all of its network stands: after it was ready,
// it may have made links for a while.
func (d *Daemon) Start(t testing.TB) {
	t.Helper()
	d.StartReady(t)
	d.Settle(t)
}

// Settle waits until zwrmd has no link left to make, mend or delete.
func (d *Daemon) Settle(t testing.TB) {
	t.Helper()
	pause := pollEvery
	for start := time.Now(); d.Pending(t) > 0; time.Sleep(pause) {
		if time.Since(start) > readyWithin {
			t.Fatalf("links are not as they should be after %s:\n%s", readyWithin, d.process.stderr.String())
		}
		pause = min(2*pause, maxPause)
	}
}

// Pending returns how many links zwrmd has still to make, mend or delete.
func (d *Daemon) Pending(t testing.TB) int {
	t.Helper()
	status, err := d.Client(t).NetworkStatus(t.Context())
	if err != nil {
		t.Fatalf("read the status of the network: %v", err)
	}
	return status.PendingLinks
}

// StartReady starts zwrmd and returns when it is ready: when the rules stand and the
// API answers.
func (d *Daemon) StartReady(t testing.TB) {
	t.Helper()
	p := start(t, d.Host.Namespace, d.command(t, "--config", d.Config))
	d.process = p
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("zwrmd said:\n%s", p.stderr.String())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	for poll := time.NewTicker(pollEvery); ; {
		if d.healthy(ctx) {
			return
		}
		select {
		case <-poll.C:
		case <-p.ended:
			t.Fatalf("zwrmd ended before it was ready, exit status %d:\n%s", p.cmd.ProcessState.ExitCode(), p.stderr.String())
		case <-ctx.Done():
			t.Fatalf("zwrmd is not ready after %s:\n%s", readyWithin, p.stderr.String())
		}
	}
}

// command returns zwrmd with arguments.
func (d *Daemon) command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	// A stop is a matter of Stop and Kill, not of the test's context.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), Binary(t, "zwrmd"), args...)
	cmd.Env = os.Environ()
	if d.Prepare != nil {
		d.Prepare(cmd)
	}
	return cmd
}

func (d *Daemon) healthy(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://zwrm/healthz", nil)
	if err != nil {
		return false
	}
	resp, err := d.HTTP().Do(request)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Run runs zwrmd with its configuration to its end: one that refuses to start, or
// that is only asked something.
func (d *Daemon) Run(t testing.TB, args ...string) Result {
	t.Helper()
	return start(t, d.Host.Namespace, d.command(t, append([]string{"--config", d.Config}, args...)...)).wait(t)
}

// PID returns the process id of zwrmd.
func (d *Daemon) PID() int { return d.process.cmd.Process.Pid }

// Log returns what zwrmd said since its last start.
func (d *Daemon) Log() string { return d.process.stderr.String() }

// Stop asks zwrmd to end, as systemd does, and waits for that. It must end well.
func (d *Daemon) Stop(t testing.TB) {
	t.Helper()
	if err := d.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("stop zwrmd: %v", err)
	}
	if r := d.process.wait(t); r.Status != 0 {
		t.Fatalf("zwrmd ended with status %d:\n%s", r.Status, r.Stderr)
	}
}

// Kill ends zwrmd as a crash does.
func (d *Daemon) Kill() { d.process.kill() }

// Restart stops zwrmd and starts it again.
func (d *Daemon) Restart(t testing.TB) {
	t.Helper()
	d.Stop(t)
	d.Start(t)
}

// Zwrm runs the command zwrm against zwrmd.
func (d *Daemon) Zwrm(t testing.TB, args ...string) Result {
	t.Helper()
	return Try(t, d.Host.Namespace, Binary(t, "zwrm"), append([]string{"--socket", d.Socket}, args...)...)
}

// Must runs the command zwrm, which must succeed, and returns its answer.
func (d *Daemon) Must(t testing.TB, args ...string) string {
	t.Helper()
	r := d.Zwrm(t, args...)
	if r.Status != 0 {
		t.Fatalf("zwrm %s: exit status %d: %s", strings.Join(args, " "), r.Status, r.Stderr)
	}
	if slices.Contains([]string{"detach", "destroy", "scale"}, args[0]) {
		d.Settle(t) // zwrmd answers before it has cleaned up
	}
	return r.Stdout
}

// Client returns a client of the API. Tests with many requests use it, since it
// starts no process for each.
func (d *Daemon) Client(t testing.TB) *client.Client {
	t.Helper()
	c := client.New(d.Socket)
	t.Cleanup(c.Close)
	return c
}

// HTTP returns a bare HTTP client of the socket, for requests that the real client
// would never send.
func (d *Daemon) HTTP() *http.Client {
	var dialer net.Dialer
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", d.Socket)
		},
		DisableKeepAlives: true,
	}}
}

// Attach makes a network with zwrm attach.
func (d *Daemon) Attach(t testing.TB, name, app string) wire.VM {
	t.Helper()
	var vm wire.VM
	if err := json.Unmarshal([]byte(d.Must(t, "attach", name, "--app", app, "-o", "json")), &vm); err != nil {
		t.Fatalf("read the answer of zwrm attach: %v", err)
	}
	return vm
}

// VMs returns what zwrm ps lists.
func (d *Daemon) VMs(t testing.TB) []wire.VM {
	t.Helper()
	vms, err := d.Client(t).VMs(t.Context(), "")
	if err != nil {
		t.Fatalf("list VMs: %v", err)
	}
	return vms
}

// Dropped returns how many packets the rules of a reason have dropped.
func (d *Daemon) Dropped(t testing.TB, reason string) uint64 {
	t.Helper()
	status, err := d.Client(t).NetworkStatus(t.Context())
	if err != nil {
		t.Fatalf("read the status of the network: %v", err)
	}
	for _, drop := range status.Drops {
		if drop.Reason == reason {
			return drop.Packets
		}
	}
	t.Fatalf("no rules drop for reason %q: %v", reason, status.Drops)
	return 0
}

// Metrics returns what /metrics answers.
func (d *Daemon) Metrics(t testing.TB) string {
	t.Helper()
	resp, err := d.HTTP().Get("http://zwrm/metrics")
	if err != nil {
		t.Fatalf("read metrics: %v", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read metrics: %v", err)
	}
	return string(text)
}

// Guest is a machine on the network of an attachment.
type Guest struct {
	*nstest.Guest
	VM wire.VM
}

// Address returns the guest's address.
func (g *Guest) Address() netip.Addr { return netip.MustParseAddr(g.VM.GuestIP) }

// Gateway returns the address of the host's side.
func (g *Guest) Gateway() netip.Addr { return netip.MustParseAddr(g.VM.Gateway) }

// Guest makes a network with zwrm attach and a guest on it.
func (d *Daemon) Guest(t testing.TB, name, app string) *Guest {
	t.Helper()
	return d.Host.Guest(t, d.Attach(t, name, app))
}

// Guest makes a guest with what zwrm attach answered and with nothing else.
func (h *Host) Guest(t testing.TB, vm wire.VM) *Guest {
	t.Helper()
	var mac ipam.MAC
	if parsed, err := net.ParseMAC(vm.MAC); err != nil || copy(mac[:], parsed) != len(mac) {
		t.Fatalf("address %q of VM %q is none of Ethernet", vm.MAC, vm.Name)
	}
	block := netip.MustParsePrefix(vm.Prefix)
	address := netip.PrefixFrom(netip.MustParseAddr(vm.GuestIP), block.Bits())
	g := &Guest{VM: vm}
	h.Do(t, func() { g.Guest = nstest.NewGuest(t, vm.TAP, address, netip.MustParseAddr(vm.Gateway), mac) })
	return g
}

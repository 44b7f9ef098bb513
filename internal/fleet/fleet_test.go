package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"zwrm/internal/config"
	"zwrm/internal/event"
	"zwrm/internal/firewall/firewalltest"
	"zwrm/internal/fleet"
	"zwrm/internal/host/hosttest"
	"zwrm/internal/image"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
	"zwrm/internal/reconcile"
	"zwrm/internal/store"
	"zwrm/internal/vmm"
)

// world is a fleet on a real store and real processes, with a kernel in memory.
type world struct {
	*fleet.Fleet
	t      *testing.T
	dir    string
	cfg    config.Config
	store  *store.Store
	hook   hook
	vmms   *stubborn
	kernel *hosttest.Fake
	rules  *firewalltest.Kernel
	faults struct{ kernel, rules faults }
	driver *driver
	events *event.Log
	net    *reconcile.Reconciler
	stray  time.Duration // see fleet.Timing
	stop   func()
}

// faults decides which changes fail. What it decides may change while the fleet works.
type faults struct {
	mu   sync.Mutex
	fail func(op string) error
}

func (f *faults) when(fail func(op string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

func (f *faults) of(op string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		return nil
	}
	return f.fail(op)
}

// newWorld returns a world whose fleet is loaded and keeps house. The text is
// part of the section [network]. No network is made ahead.
func newWorld(t *testing.T, network string) *world {
	t.Helper()
	return newWorldOf(t, "pool = 0\n"+network)
}

// newWorldOf is newWorld with as many networks made ahead as the text says.
func newWorldOf(t *testing.T, network string) *world {
	t.Helper()
	kernel := hosttest.NewFake()
	w := &world{t: t, dir: t.TempDir(), kernel: kernel, rules: firewalltest.NewKernel(), driver: &driver{kernel: kernel}}
	w.vmms = &stubborn{VMMs: fleet.OnHost(w.driver, nil)}
	w.kernel.Fail, w.rules.Fail = w.faults.kernel.of, w.faults.rules.of
	var err error
	if w.cfg, err = config.Parse("[network]\n"+network+"[network.bridge]\nenabled = true\n", nil); err != nil {
		t.Fatal(err)
	}
	w.start()
	t.Cleanup(func() {
		w.stop()
		w.driver.killAll()
	})
	return w
}

// start begins the life of a daemon on what the one before left.
func (w *world) start() {
	w.t.Helper()
	ctx := w.t.Context()
	var err error
	if w.store, err = store.Open(ctx, filepath.Join(w.dir, "state.db"), &w.hook); err != nil {
		w.t.Fatal(err)
	}
	rows := func(ctx context.Context, slots ...ipam.Slot) ([]model.VM, error) {
		if len(slots) > 0 {
			return w.store.VMsAt(ctx, slots...)
		}
		state, err := w.store.State(ctx)
		return state.VMs, err
	}
	log := slog.New(slog.DiscardHandler)
	w.events = &event.Log{}
	w.net = reconcile.New(w.cfg.Network, plan.Uplink{Name: "eth0", MTU: 1500},
		reconcile.Kernel{Links: w.kernel, Settings: w.kernel, Firewall: w.rules.Open()}, rows, w.events, log)
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	w.Fleet = fleet.New(life, fleet.Deps{
		Store: w.store, Network: w.net, Images: images{}, VMMs: w.vmms, Pinger: w.kernel,
		Layout: w.cfg.Network.Layout, DNS: w.cfg.Network.DNS, MTU: w.net.MTU, Dir: filepath.Join(w.dir, "vms"), UIDBase: w.cfg.VMM.UIDBase, Events: w.events, Log: log,
		Timing:  fleet.Timing{FirstRetry: time.Millisecond, LastRetry: 10 * time.Millisecond, Tick: 10 * time.Millisecond, Stray: w.stray},
		Started: vmm.Started,
	})
	if err := w.Load(ctx); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.net.Stand(ctx); err != nil {
		w.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.Run(life) }()
	if _, err := w.net.Sync(ctx); err != nil { // beside VMs that start, as in zwrmd
		w.t.Fatal(err)
	}
	w.stop = func() {
		end()
		if err := errors.Join(<-done, w.store.Close()); err != nil {
			w.t.Error(err)
		}
	}
}

// restart ends the daemon's life and begins another.
func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

func (w *world) deploy(app string, scale int) error {
	_, err := w.Deploy(w.t.Context(), model.Name(app), model.Spec{Image: "small", Scale: scale})
	return err
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// text returns rows, links and rules for people to compare.
func (w *world) text() string {
	w.t.Helper()
	for { // what is done behind a removal
		wait, err := w.net.Clean(w.t.Context())
		w.must(err)
		if wait == 0 {
			break
		}
		time.Sleep(wait)
	}
	state, err := w.store.State(w.t.Context())
	w.must(err)
	var lines []string
	for _, app := range state.Apps {
		lines = append(lines, fmt.Sprintf("app %s image=%s scale=%d memory=%d", app.Name, app.Spec.Image, app.Spec.Scale, app.Spec.MemoryMiB))
	}
	for _, vm := range state.VMs {
		lines = append(lines, fmt.Sprintf("vm %s slot=%d %s memory=%d attachment=%t", vm.Name, vm.Slot, vm.State, vm.Spec.MemoryMiB, vm.Attachment))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n" + w.rules.Dump() + w.kernel.Dump()
}

// eventually waits until the condition holds.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("not within 10 s: %s\n%s", what, w.text())
		}
	}
}

func (w *world) vm(name string) model.VM {
	w.t.Helper()
	vm, err := w.store.VM(w.t.Context(), model.Name(name))
	w.must(err)
	return vm
}

// insync fails the test when kernel and rows differ.
func (w *world) insync() {
	w.t.Helper()
	findings, err := w.net.Check(w.t.Context())
	w.must(err)
	for _, f := range findings {
		w.t.Errorf("%s: wanted %s, found %s", f.Object, f.Wanted, f.Found)
	}
}

// images has two images, one with a root file system.
type images struct{}

func (images) Get(name model.Name) (image.Image, error) {
	img := image.Image{Name: name, Kernel: "/kernel", Args: "console=ttyS0"}
	switch name {
	case "small":
	case "disk":
		img.Rootfs = "/rootfs"
	default:
		return image.Image{}, model.Problemf(model.NotFound, "no image named %q", name)
	}
	return img, nil
}

func (images) Remove(model.Name) error { return nil }

// driver runs sleep(1) for a VMM, and holds its TAP.
type driver struct {
	kernel *hosttest.Fake

	mu        sync.Mutex
	processes []*vmm.Process
	specs     []vmm.Spec
	fail      func(vmm.Spec) error
}

func (d *driver) Name() string { return "sleep" }

func (d *driver) Start(_ context.Context, spec vmm.Spec) (*vmm.Process, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		if err := d.fail(spec); err != nil {
			return nil, err
		}
	}
	user := vmm.User{ID: spec.UID}
	if err := vmm.PrepareFolder(spec.Dir, user, nil); err != nil {
		return nil, err
	}
	process, err := vmm.Launch(vmm.Command{Program: "/bin/sleep", Args: []string{"600"}, Dir: spec.Dir, User: user})
	if err != nil {
		return nil, err
	}
	tap, err := d.kernel.OpenTAP(spec.TAP)
	if err != nil {
		return nil, errors.Join(err, process.Kill(context.Background()))
	}
	go func() {
		<-process.Done()
		_ = tap.Close() // never an error
	}()
	d.processes = append(d.processes, process)
	d.specs = append(d.specs, spec)
	return process, nil
}

func (d *driver) failWhen(fail func(vmm.Spec) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = fail
}

func (d *driver) alive() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, p := range d.processes {
		select {
		case <-p.Done():
		default:
			n++
		}
	}
	return n
}

func (d *driver) killAll() {
	for _, p := range d.processes {
		_ = p.Kill(context.Background()) // gone is good
	}
}

// exists reports whether there is something of this path.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

package model_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"zwrm/internal/config"
	"zwrm/internal/event"
	"zwrm/internal/fleet"
	"zwrm/internal/host"
	"zwrm/internal/image"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
	"zwrm/internal/reconcile"
	"zwrm/internal/store"
)

const (
	uplink     = "eth0"
	subnet     = "172.16.0.0/26"
	quarantine = time.Minute
	// patience is when a VM whose VMM died, and then did not start, is tried again
	// at the latest.
	patience = 4 * time.Second
	tick     = 5 * time.Second
)

// site is a kernel: links, settings and rules that stay when zwrmd goes.
type site interface {
	// open returns the kernel for a zwrmd that begins.
	open() (kernel reconcile.Kernel, end func() error, err error)
	kernel() kernel
	// plug opens a TAP as a VMM does.
	plug(tap string) (io.Closer, error)
	// rules returns all rules of ours as text, and the groups of apps that have one.
	rules() (text string, apps []model.Group, err error)
	drifts() map[string]drift
	// traffic leaves traces of a VM's packets in the kernel; traces returns what
	// there is of them, a line each.
	traffic(vm model.VM, guest netip.Addr) error
	traces() ([]string, error)
	// foreign returns all that is not ours, as text.
	foreign() (string, error)
	// strays returns the links that have a name like ours, and are not.
	strays() []string
	// reboot leaves what there is after the host booted.
	reboot() error
}

// drift is what somebody else does to us: to a TAP of a VM, to rules or to settings.
// It reports whether it changed something.
type drift func(t *rapid.T, tap string) (changed bool)

// kernel is what the test itself does to links and settings.
type kernel interface {
	Links(ctx context.Context) ([]host.Link, error)
	Sysctl(name string) (string, error)
}

// world is a host on which zwrmds come and go.
type world struct {
	site  site
	seam  *seam
	vmms  *vmms
	dir   string
	cfg   config.Config
	*life       // of the zwrmd that runs
	seen  *seen // at the last look; nil: it may have changed since
}

// seen is what takes long to read.
type seen struct {
	state  store.State
	groups []model.Group
}

// life is what a zwrmd has, and loses when it ends.
type life struct {
	*fleet.Fleet
	store *store.Store
	net   *reconcile.Reconciler
	quit  func() error // has its goroutines end
	close func() error // lets go of the kernel and the database
}

func newWorld(t *rapid.T, seam *seam, site site) *world {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "zwrm-model")
	must(t, err)
	w := &world{site: site, seam: seam, dir: dir}
	w.vmms = &vmms{seam: w.seam, alive: map[int]*process{}, tap: func(name string) (int, bool) {
		link, ok := w.link(name)
		return link.Index, ok
	}, plug: site.plug}
	t.Cleanup(func() {
		if w.life != nil {
			_ = errors.Join(w.quit(), w.close())
		}
		w.vmms.reboot()
		_ = os.RemoveAll(dir)
	})
	w.configure(t, true)
	must(t, w.begin())
	return w
}

// configure sets whether there is private networking, and how many TAPs are made ahead,
// for the next start.
func (w *world) configure(t *rapid.T, private bool) {
	t.Helper()
	pool := rapid.SampledFrom([]int{0, 3}).Draw(t, "TAPs made ahead")
	text := fmt.Sprintf("[network]\nsubnet = %q\nexternal_interface = %q\npool = %d\n[network.bridge]\nenabled = %t\n", subnet, uplink, pool, private)
	cfg, err := config.Parse(text, nil)
	must(t, err)
	w.cfg = cfg
}

// begin starts a zwrmd on what the one before left, as the daemon does.
func (w *world) begin() (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	var closers []func() error
	end := func() error {
		var errs []error
		for _, c := range slices.Backward(closers) {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			cancel()
			err = errors.Join(err, end())
		}
	}()
	l := &life{}
	if l.store, err = store.Open(ctx, filepath.Join(w.dir, "state.db"), w.seam); err != nil {
		return err
	}
	closers = append(closers, l.store.Close)
	kernel, release, err := w.site.open()
	if err != nil {
		return err
	}
	closers = append(closers, release)
	log, events := slog.New(slog.DiscardHandler), &event.Log{}
	rows := func(ctx context.Context, slots ...ipam.Slot) ([]model.VM, error) {
		if len(slots) > 0 {
			return l.store.VMsAt(ctx, slots...)
		}
		state, err := l.store.State(ctx)
		return state.VMs, err
	}
	l.net = reconcile.New(w.cfg.Network, plan.Uplink{Name: uplink, MTU: 1500}, w.seam.over(kernel), rows, events, log)
	l.Fleet = fleet.New(ctx, fleet.Deps{
		Store: l.store, Network: l.net, Images: images{}, VMMs: w.vmms, Layout: w.cfg.Network.Layout,
		MTU: l.net.MTU, Dir: filepath.Join(w.dir, "vms"), Events: events, Log: log, Hook: w.seam,
		Timing: fleet.Timing{Quarantine: quarantine, LastRetry: patience, Tick: tick},
	})
	if err := l.Load(ctx); err != nil {
		return err
	}
	if _, err := l.net.Stand(ctx); err != nil {
		return err
	}
	var work errgroup.Group
	work.Go(func() error { return l.Run(ctx) })
	work.Go(func() error {
		_, err := l.net.Sync(ctx)
		_ = errors.Join(err, l.Reconnect(ctx, l.net.Rebuilt())) // what fails is tried again
		return nil
	})
	l.quit, l.close = func() error { cancel(); return work.Wait() }, end
	w.life = l
	calm()
	return nil
}

// repair is what the daemon does from time to time and when it is asked to.
func (w *world) repair(ctx context.Context) (int, error) {
	w.seen = nil
	findings, err := w.net.Repair(ctx)
	err = errors.Join(err, w.Reconnect(context.WithoutCancel(ctx), w.net.Rebuilt()))
	calm()
	return len(findings), err
}

// rest lets zwrmd clean up behind VMs that are gone, and make TAPs ahead.
func (w *world) rest() {
	for range 50 {
		_, free, _ := w.Slots()
		ready, lack := w.net.Spares()
		if w.net.Pending() == 0 && (lack == 0 || free <= len(ready)) {
			return
		}
		time.Sleep(100 * time.Millisecond)
		calm()
	}
}

// calm waits until zwrmd only waits. It looks twice, since synctest takes it for waiting,
// too, when SQLite sleeps because a reader has the writer's lock for an instant: it takes
// that where it reads the head of the log while the writer changes it.
func calm() {
	synctest.Wait()
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
}

// link returns the link of that name.
func (w *world) link(name string) (host.Link, bool) {
	links, err := w.site.kernel().Links(context.Background())
	if err != nil {
		return host.Link{}, false
	}
	i := slices.IndexFunc(links, func(l host.Link) bool { return l.Name == name })
	if i < 0 {
		return host.Link{}, false
	}
	return links[i], true
}

func (w *world) state(t *rapid.T) store.State {
	t.Helper()
	if w.seen != nil {
		return w.seen.state
	}
	state, err := w.store.State(context.Background())
	must(t, err)
	return state
}

// groups returns the apps that have a rule.
func (w *world) groups(t *rapid.T) []model.Group {
	t.Helper()
	if w.seen != nil {
		return w.seen.groups
	}
	_, groups, err := w.site.rules()
	must(t, err)
	slices.Sort(groups)
	return groups
}

// text returns everything that a request may change, but for pids and ids.
func (w *world) text(t *rapid.T) string {
	t.Helper()
	w.rest()
	var b strings.Builder
	state := w.state(t)
	fmt.Fprintln(&b, rows(state))
	for _, vm := range state.VMs {
		fmt.Fprintf(&b, "vm %s slot %d %s\n", vm.Name, vm.Slot, vm.State)
	}
	links, err := w.site.kernel().Links(context.Background())
	must(t, err)
	var lines []string
	for _, l := range links {
		if l.Alias == plan.SpareAlias {
			continue // which there are changes with every one that is handed out
		}
		if l.Kind == host.KindBridge {
			l.MAC = ipam.MAC{} // drawn when it is made
		}
		lines = append(lines, fmt.Sprintf("link %s %s group %s mac %s mtu %d up %t %v %v", l.Name, l.Kind, l.Group, l.MAC, l.MTU, l.Up, l.Addresses, l.Hardening.Wrong))
	}
	slices.Sort(lines)
	fmt.Fprintln(&b, strings.Join(lines, "\n"))
	fmt.Fprintln(&b, "groups with a rule:", w.groups(t)) // the other rules are the dataplane's
	lines = nil
	for _, p := range w.vmms.running() {
		lines = append(lines, fmt.Sprintf("process of %s memory %d on %s", p.spec.Name, p.spec.MemoryMiB, p.spec.TAP))
	}
	slices.Sort(lines)
	fmt.Fprintln(&b, strings.Join(lines, "\n"))
	return b.String()
}

// pids returns the VMMs of all apps but one.
func (w *world) pids(but model.Name) map[model.Name]int {
	pids := map[model.Name]int{}
	for _, p := range w.vmms.running() {
		if but == "" || !strings.HasPrefix(string(p.spec.Name), string(but)+"-") {
			pids[p.spec.Name] = p.id.PID
		}
	}
	return pids
}

// ours reports whether a link has a name of ours, and a group too.
func ours(l host.Link) bool {
	_, named := ipam.ParseTAP(l.Name)
	return named && l.Group.Ours()
}

func must(t *rapid.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// images has one image.
type images struct{}

func (images) Get(name model.Name) (image.Image, error) {
	return image.Image{Name: name, Kernel: "/kernel"}, nil
}

func (images) Remove(model.Name) error { return nil }

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"zwrm/internal/api"
	"zwrm/internal/config"
	"zwrm/internal/effect"
	"zwrm/internal/event"
	"zwrm/internal/firewall"
	"zwrm/internal/fleet"
	"zwrm/internal/host"
	"zwrm/internal/image"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
	"zwrm/internal/reconcile"
	"zwrm/internal/store"
	"zwrm/internal/vmm"
	"zwrm/internal/vmm/qemu"
)

// stopWithin bounds the shutdown of the network.
const stopWithin = 30 * time.Second

// task is a part of the daemon that runs until its context ends.
type task struct {
	name string
	run  func(ctx context.Context) error
}

// Daemon is zwrmd, checked and ready to run.
type Daemon struct {
	cfg        config.Config
	log        *slog.Logger
	hook       effect.Hook // of every side effect
	store      *store.Store
	kernel     *host.Kernel
	dataplane  *dataplane
	neighbours *neighbours
	images     *image.Store
	uplink     plan.Uplink
	events     *event.Log
	reconciler *reconcile.Reconciler
	driver     *qemu.Driver
	frames     frames

	dropReadings readings[firewall.Drops]
	suspicion    chan struct{} // something may have been changed by somebody else
	blind        atomic.Bool   // the kernel does not tell of changed rules
	stood        chan struct{} // closed when the links are made that were left to make since the start
}

// Open locks the database and checks the configuration against the host. It
// changes nothing in the kernel. Problems of the host are a *config.Errors. The hook,
// which may be nil, is told of every side effect.
func Open(ctx context.Context, cfg config.Config, log *slog.Logger, hook effect.Hook) (_ *Daemon, err error) {
	d := &Daemon{cfg: cfg, log: log, hook: hook, events: &event.Log{}, images: image.New(cfg.Images.Dir, hook),
		suspicion: make(chan struct{}, 1), stood: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	nobody := cfg.VMM.UIDBase + uint32(cfg.Network.Layout.Capacity()) // the VMs have those before
	// Meanwhile, since trying out what works takes longer than all else here.
	driver, giveUp := begin(ctx, func(ctx context.Context) (*qemu.Driver, error) { return qemu.Open(ctx, nobody, log, hook) })
	defer giveUp()
	if d.uplink, err = d.inspect(ctx); err != nil {
		return nil, err
	}
	if d.neighbours, err = openNeighbours(ctx, cfg.Network, d.uplink.Name, hook); err != nil {
		return nil, err
	}
	d.dataplane.neighbours = d.neighbours.all()
	if d.store, err = store.Open(ctx, cfg.Database.Path, hook); err != nil {
		return nil, err
	}
	if err := d.checkSubnet(ctx); err != nil {
		return nil, err
	}
	if d.driver, err = driver(); err != nil {
		return nil, err
	}
	d.reconciler = reconcile.New(cfg.Network, d.uplink,
		reconcile.Kernel{Links: d.kernel, Settings: d.kernel, Firewall: d.dataplane}, d.rows, d.events, log)
	return d, nil
}

// begin runs open beside the caller. wait returns its result; giveUp ends it, and is
// to be called in any case.
func begin[T any](ctx context.Context, open func(context.Context) (T, error)) (wait func() (T, error), giveUp func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var result T
	var err error
	go func() {
		defer close(done)
		result, err = open(ctx)
	}()
	wait = func() (T, error) {
		<-done
		return result, err
	}
	return wait, func() { cancel(); <-done }
}

// Close lets go of the kernel and the database.
func (d *Daemon) Close() error {
	var errs []error
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	if d.dataplane != nil {
		errs = append(errs, d.dataplane.Close())
	}
	if d.kernel != nil {
		errs = append(errs, d.kernel.Close())
	}
	return errors.Join(errs...)
}

// Run makes the network, serves the API, and returns when ctx ends and all is
// shut down as the configuration says. VMs outlive it.
func (d *Daemon) Run(ctx context.Context) error {
	limitMemory(d.cfg.Network.Layout.Capacity())
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	fleet := fleet.New(life, fleet.Deps{
		Store: d.store, Network: d.reconciler, Images: d.images, VMMs: fleet.OnHost(d.driver, d.hook), Pinger: d.kernel,
		Layout: d.cfg.Network.Layout, DNS: d.cfg.Network.DNS, MTU: d.reconciler.MTU,
		Dir:     filepath.Join(filepath.Dir(d.cfg.Database.Path), "vms"),
		UIDBase: d.cfg.VMM.UIDBase,
		Events:  d.events, Log: d.log, Hook: d.hook, Started: vmm.Started,
	})
	// First, since an address that is taken must not leave a network behind.
	endpoints, err := d.listen(api.New(d.apiDeps(fleet)))
	if err != nil {
		return err
	}
	left, err := d.prepare(ctx, fleet)
	if err != nil {
		return errors.Join(err, hangUp(endpoints))
	}
	var servers []task
	for _, e := range endpoints {
		servers = append(servers, e.task())
	}
	// The servers end before the background does, so that a request under way
	// still has all it works with.
	serving, stop := context.WithCancel(ctx)
	defer stop()
	background := start(life, stop, []task{
		{"fleet", fleet.Run},
		{"watch rules", d.watchRules}, {"watch links", d.watchLinks(left)}, {"watch firewalld", d.watchZone}, {"poll", d.poll},
		{"repair", network{d, fleet}.keep(left)},
	})
	requests := start(serving, stop, servers)
	d.notify(systemd.SdNotifyReady)
	err = requests.Wait()
	d.notify(systemd.SdNotifyStopping)
	end()
	return errors.Join(err, background.Wait(), d.shutdown(ctx))
}

// start runs the tasks until ctx ends. The end of one of them before that is an
// error, and has stop called.
func start(ctx context.Context, stop func(), tasks []task) *errgroup.Group {
	var group errgroup.Group
	for _, t := range tasks {
		group.Go(func() error {
			defer stop()
			err := t.run(ctx)
			if err != nil {
				err = fmt.Errorf("task %q: %w", t.name, err)
			}
			return err
		})
	}
	return &group
}

// prepare takes up what there is, before anybody can ask for more: rows, VMMs, and
// the rules, by which nothing passes that must not. It reports whether links are
// left to make, mend or delete.
func (d *Daemon) prepare(ctx context.Context, fleet *fleet.Fleet) (left bool, err error) {
	if err := d.images.Sweep(); err != nil {
		d.log.Warn("unfinished images stay", "error", err)
	}
	if err := fleet.Load(ctx); err != nil {
		return false, err
	}
	findings, err := d.reconciler.Stand(ctx)
	if err != nil {
		return false, fmt.Errorf("make the network: %w", err)
	}
	fleet.Avoid(d.reconciler.Strays()...)
	d.log.Info("network stands", "uplink", d.uplink.Name, "subnet", d.cfg.Network.Layout.Subnet(),
		"changes", len(findings), "links", d.reconciler.Pending())
	return d.reconciler.Pending() > 0, nil
}

// Clean takes away the rules, the bridge and the spare TAPs that an earlier zwrmd left, as a stop with
// on_shutdown = "clean" does. It refuses while another zwrmd has the database.
func Clean(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	d, err := Open(ctx, cfg, log, nil)
	if err != nil {
		return err
	}
	return errors.Join(d.reconciler.Shutdown(ctx), d.Close())
}

// shutdown leaves of the network what the configuration says. It runs although
// ctx, the life of zwrmd, has ended.
func (d *Daemon) shutdown(ctx context.Context) error {
	if d.cfg.Network.OnShutdown == config.ShutdownKeep {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	return d.reconciler.Shutdown(ctx)
}

// notify tells systemd; without systemd it does nothing.
func (d *Daemon) notify(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		d.log.Warn("systemd not told", "state", state, "error", err)
	}
}

// rows returns every VM there should be, or those with certain slots.
func (d *Daemon) rows(ctx context.Context, slots ...ipam.Slot) ([]model.VM, error) {
	if len(slots) > 0 {
		return d.store.VMsAt(ctx, slots...)
	}
	state, err := d.store.State(ctx)
	return state.VMs, err
}

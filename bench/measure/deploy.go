package measure

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"zwrm/bench/report"
	"zwrm/internal/config"
	"zwrm/internal/event"
	"zwrm/internal/firewall/iptables"
	"zwrm/internal/firewall/nftables"
	"zwrm/internal/fleet"
	"zwrm/internal/host"
	"zwrm/internal/image"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
	"zwrm/internal/reconcile"
	"zwrm/internal/store"
	"zwrm/internal/vmm"
	"zwrm/test/zwrmtest"
)

// deploys measures deploys of many VMs at once beside as many TAPs of the floor.
func (o Options) deploys(t testing.TB, r *report.Results, dataplane string, present int) {
	t.Helper()
	f, fl := newFloor(t), newFleet(t, dataplane)
	f.batch(t, present)
	fl.fill(t, present)
	for _, count := range o.Counts {
		var floors, networks, wholes []float64
		for range o.Deploys {
			floors = append(floors, milliseconds(f.batch(t, count)))
			network, whole := fl.deploy(t, count)
			networks, wholes = append(networks, milliseconds(network)), append(wholes, milliseconds(whole))
			f.deleteLast(t, count)
			must(t, fl.Destroy(t.Context(), deployed))
			for len(linksOf(t, nil, "zvm")) > present { // it deletes them behind the answer
				time.Sleep(look)
			}
		}
		key := report.Key{Part: report.Batch, Present: present, Count: count, Measure: report.Network, By: report.Floor}
		if _, there := r.Find(key); !there { // with the first dataplane
			r.Add(key, floors, nil)
		}
		key.By = dataplane
		r.Add(key, networks, floors)
		key.Measure = report.Deploy
		r.Add(key, wholes, floors)
	}
}

// deployed is the app that comes and goes.
const deployed model.Name = "deployed"

// composition is zwrmd without its API, on the real kernel in the namespace of the
// process, with VMMs that start at once.
type composition struct {
	*fleet.Fleet
	vmms  *instant
	ended chan error // of its housekeeping
}

func newFleet(t testing.TB, dataplane string) *composition {
	t.Helper()
	ctx := t.Context()
	cfg, err := config.Parse(fmt.Sprintf("[network]\nsubnet = %q\npool = 0\n[network.bridge]\nenabled = true\nsubnet = \"10.0.0.0/16\"\n", subnet), nil)
	must(t, err)
	kernel, err := host.Open(nil)
	must(t, err)
	var rules reconcile.Firewall
	if dataplane == string(config.Nftables) {
		rules, err = nftables.Open(ctx, nil)
	} else {
		rules, err = iptables.Open(ctx, nil)
	}
	must(t, err)
	dir := zwrmtest.TempDir(t)
	rows, err := store.Open(ctx, filepath.Join(dir, "state.db"), nil)
	must(t, err)
	log, events := slog.New(slog.DiscardHandler), &event.Log{}
	network := reconcile.New(cfg.Network, plan.Uplink{Name: zwrmtest.Uplink, MTU: 1500},
		reconcile.Kernel{Links: kernel, Settings: kernel, Firewall: rules},
		func(ctx context.Context, slots ...ipam.Slot) ([]model.VM, error) {
			if len(slots) > 0 {
				return rows.VMsAt(ctx, slots...)
			}
			state, err := rows.State(ctx)
			return state.VMs, err
		}, events, log)
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	c := &composition{vmms: &instant{}, ended: make(chan error, 1)}
	c.Fleet = fleet.New(life, fleet.Deps{
		Store: rows, Network: network, Images: images{}, VMMs: c.vmms, Layout: cfg.Network.Layout, MTU: network.MTU,
		Dir: filepath.Join(dir, "vms"), Events: events, Log: log, Timing: fleet.Timing{Quarantine: time.Nanosecond},
	})
	must(t, c.Load(ctx))
	_, err = network.Sync(ctx)
	must(t, err)
	go func() { c.ended <- c.Run(life) }()
	t.Cleanup(func() {
		end()
		must(t, <-c.ended)
		deleteLinks(t, nil, "zvm")
		must(t, network.Shutdown(context.WithoutCancel(ctx)))
		must(t, rows.Close())
		must(t, kernel.Close())
	})
	return c
}

// fill attaches VMs, ten to an app.
func (c *composition) fill(t testing.TB, vms int) {
	t.Helper()
	var group errgroup.Group
	group.SetLimit(clients)
	for n := range vms {
		group.Go(func() error {
			_, err := c.Attach(t.Context(), model.Name(fmt.Sprintf("vm-%d", n)), model.Name(fmt.Sprintf("app-%d", n/10)))
			return err
		})
	}
	must(t, group.Wait())
}

// deploy deploys an app, and returns how long it took until the first VMM was started,
// which is when all networks are open, and as a whole.
func (c *composition) deploy(t testing.TB, vms int) (network, whole time.Duration) {
	t.Helper()
	c.vmms.first.Store(nil)
	start := time.Now()
	_, err := c.Deploy(t.Context(), deployed, model.Spec{Image: "any", Scale: vms})
	whole = time.Since(start)
	must(t, err)
	return c.vmms.first.Load().Sub(start), whole
}

type images struct{}

func (images) Get(name model.Name) (image.Image, error) { return image.Image{Name: name}, nil }
func (images) Remove(model.Name) error                  { return nil }

// instant is VMMs that run as soon as they are started, and cost nothing.
type instant struct {
	first atomic.Pointer[time.Time] // start
	pids  atomic.Int64
}

func (i *instant) Start(context.Context, vmm.Spec) (fleet.Process, error) {
	now := time.Now()
	i.first.CompareAndSwap(nil, &now)
	return &process{id: model.Process{PID: int(i.pids.Add(1))}, done: make(chan struct{})}, nil
}

func (*instant) Find(string) (map[string]model.Process, error) { return nil, nil }
func (*instant) Adopt(model.Process) (fleet.Process, error)    { return nil, vmm.ErrGone }

// process is a VMM that runs until it is stopped.
type process struct {
	id   model.Process
	done chan struct{}
}

func (p *process) Identity() model.Process { return p.id }
func (p *process) Done() <-chan struct{}   { return p.done }
func (p *process) Exit() string            { return "" }

func (p *process) Stop(context.Context, time.Duration) error {
	close(p.done)
	return nil
}

package bench_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"zwrm/internal/config"
	"zwrm/internal/event"
	"zwrm/internal/firewall/iptables"
	"zwrm/internal/fleet"
	"zwrm/internal/host"
	"zwrm/internal/host/nstest"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
	"zwrm/internal/reconcile"
	"zwrm/internal/store"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// full is the number of VMs that a /16 holds.
const full = 16384

// bench is zwrmd without its API and without VMMs, on the real kernel.
type bench struct {
	*fleet.Fleet
	kernel *host.Kernel
	floor  *floor
	named  int
}

// newBench makes a host of its own in the benchmark's namespace with as many
// attachments, ten to an app. The subnet is a /15, so that there is room for more.
func newBench(b *testing.B, present int) *bench {
	b.Helper()
	ctx := b.Context()
	cfg, err := config.Parse("[network]\nsubnet = \"10.64.0.0/15\"\n[network.bridge]\nenabled = true\nsubnet = \"10.0.0.0/16\"\n", nil)
	must(b, err)
	kernel, err := host.Open(nil)
	must(b, err)
	dataplane, err := iptables.Open(ctx, nil)
	must(b, err)
	rows, err := store.Open(ctx, filepath.Join(b.TempDir(), "state.db"), nil)
	must(b, err)
	log := slog.New(slog.DiscardHandler)
	network := reconcile.New(cfg.Network, plan.Uplink{Name: "eth0", MTU: 1500},
		reconcile.Kernel{Links: kernel, Settings: kernel, Firewall: dataplane},
		func(ctx context.Context, slots ...ipam.Slot) ([]model.VM, error) {
			if len(slots) > 0 {
				return rows.VMsAt(ctx, slots...)
			}
			state, err := rows.State(ctx)
			return state.VMs, err
		}, &event.Log{}, log)
	x := &bench{kernel: kernel, floor: newFloor(b), Fleet: fleet.New(ctx, fleet.Deps{
		Store: rows, Network: network, Layout: cfg.Network.Layout, Dir: b.TempDir(), Events: &event.Log{}, Log: log,
		Timing: fleet.Timing{Quarantine: time.Nanosecond},
	})}
	_, err = network.Sync(ctx)
	must(b, err)
	b.Cleanup(func() {
		ctx := context.WithoutCancel(ctx)
		must(b, x.deleteAll(ctx))
		must(b, network.Shutdown(ctx))
		must(b, rows.Close())
		must(b, kernel.Close())
	})
	for range present {
		must(b, x.attach(ctx))
	}
	return x
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// attach attaches the next VM.
func (x *bench) attach(ctx context.Context) error {
	_, err := x.Attach(ctx, name(x.named), model.Name(fmt.Sprintf("app%d", x.named/10)))
	x.named++
	return err
}

// detach detaches the VM that was attached last.
func (x *bench) detach(ctx context.Context) error {
	x.named--
	return x.Detach(ctx, name(x.named))
}

func name(i int) model.Name { return model.Name(fmt.Sprintf("vm%d", i)) }

// deleteAll removes every TAP at once, faster than detaching one by one.
func (x *bench) deleteAll(ctx context.Context) error {
	links, err := x.kernel.Links(ctx)
	if err != nil {
		return err
	}
	var taps []string
	for _, link := range links {
		if _, ok := ipam.ParseTAP(link.Name); ok {
			taps = append(taps, link.Name)
		}
	}
	return x.kernel.DeleteLinks(ctx, taps...)
}

// BenchmarkAttach times an attach with its durable row, and in turn with it the
// bare kernel calls that make the same TAP: "floor-ns/op" is theirs, "x-floor" the
// ratio.
func BenchmarkAttach(b *testing.B) {
	for _, present := range []int{0, full} {
		b.Run(fmt.Sprintf("present=%d", present), func(b *testing.B) {
			x := newBench(b, present)
			ctx := b.Context()
			b.ReportAllocs()
			b.ResetTimer()
			var floor time.Duration
			for range b.N {
				must(b, x.attach(ctx))
				b.StopTimer()
				floor += x.floor.create(b)
				b.StartTimer()
			}
			b.StopTimer()
			report(b, floor)
		})
	}
}

// BenchmarkDetach does the same for detach. Both wait for the kernel's grace
// periods (RCU), which are most of the time.
func BenchmarkDetach(b *testing.B) {
	for _, present := range []int{0, full} {
		b.Run(fmt.Sprintf("present=%d", present), func(b *testing.B) {
			x := newBench(b, present)
			ctx := b.Context()
			for range b.N {
				must(b, x.attach(ctx))
				x.floor.create(b)
			}
			b.ReportAllocs()
			b.ResetTimer()
			var floor time.Duration
			for range b.N {
				must(b, x.detach(ctx))
				b.StopTimer()
				floor += x.floor.delete(b)
				b.StartTimer()
			}
			b.StopTimer()
			report(b, floor)
		})
	}
}

func report(b *testing.B, floor time.Duration) {
	b.ReportMetric(float64(floor.Nanoseconds())/float64(b.N), "floor-ns/op")
	b.ReportMetric(float64(b.Elapsed())/float64(floor), "x-floor")
}

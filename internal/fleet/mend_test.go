package fleet_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"zwrm/internal/effect"
	"zwrm/internal/fleet"
	"zwrm/internal/model"
	"zwrm/internal/vmm"
)

var errBroken = errors.New("broken on purpose")

// hook has writes to the database fail.
type hook struct {
	mu   sync.Mutex
	fail func(op effect.Op) bool // nil: none
	hit  int
}

func (h *hook) Before(op effect.Op) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil && h.fail(op) {
		h.hit++
		return errBroken
	}
	return nil
}

func (h *hook) After(effect.Op) {}

// failWhen sets which writes fail from now on, and returns how many did before.
func (h *hook) failWhen(fail func(op effect.Op) bool) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = fail
	return h.hit
}

func (h *hook) hits() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hit
}

// stubborn has VMMs that do not stop as often as it is told.
type stubborn struct {
	fleet.VMMs
	mu   sync.Mutex
	fail int
}

type stubbornProcess struct {
	fleet.Process
	all *stubborn
}

func (s *stubborn) Start(ctx context.Context, spec vmm.Spec) (fleet.Process, error) {
	p, err := s.VMMs.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	return stubbornProcess{p, s}, nil
}

func (s *stubborn) failNext(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = n
}

func (p stubbornProcess) Stop(ctx context.Context, grace time.Duration) error {
	p.all.mu.Lock()
	defer p.all.mu.Unlock()
	if p.all.fail > 0 {
		p.all.fail--
		return errBroken
	}
	return p.Process.Stop(ctx, grace)
}

// whole waits until every VM runs and kernel and rows agree.
func (w *world) whole() {
	w.t.Helper()
	w.eventually("all is as the rows say", func() bool {
		vms, err := w.VMs(context.Background())
		w.must(err)
		for _, vm := range vms {
			if vm.State != model.Running {
				return false
			}
		}
		findings, err := w.net.Check(context.Background())
		return err == nil && len(findings) == 0 && w.driver.alive() == len(vms)
	})
}

// TestVMMThatDoesNotStop: a restart fails, since the VMM lives on. The next try stops
// it before it starts another.
func TestVMMThatDoesNotStop(t *testing.T) {
	w := newWorld(t, "")
	w.must(w.deploy("web", 1))
	before := w.vm("web-0").Process
	w.vmms.failNext(1)
	if err := w.Restart(t.Context(), "web-0"); !errors.Is(err, errBroken) {
		t.Fatalf("error %v", err)
	}
	w.whole()
	if now := w.vm("web-0").Process; now == before {
		t.Error("it was not restarted")
	}
	if n := len(w.driver.specs); n != 2 {
		t.Errorf("%d VMMs were started, want 2", n)
	}
}

// TestVMMThatIsNotNoted: the database fails right behind the start of a VMM, and the
// VMM does not stop. It goes with the request's other traces.
func TestVMMThatIsNotNoted(t *testing.T) {
	w := newWorld(t, "")
	updates := 0
	w.hook.failWhen(func(op effect.Op) bool {
		if op == "store.update-vm" {
			updates++
		}
		return op == "store.update-vm" && updates == 2
	})
	w.vmms.failNext(1)
	if err := w.deploy("web", 1); !errors.Is(err, errBroken) {
		t.Fatalf("error %v", err)
	}
	w.eventually("nothing is left", func() bool { return w.driver.alive() == 0 })
	w.insync()
}

// TestDeathThatIsNotNoted: the database fails while a VMM dies.
func TestDeathThatIsNotNoted(t *testing.T) {
	w := newWorld(t, "")
	w.must(w.deploy("web", 1))
	w.hook.failWhen(func(op effect.Op) bool { return op == "store.update-vm" })
	process, err := vmm.Adopt(w.vm("web-0").Process, nil)
	w.must(err)
	w.must(process.Kill(t.Context()))
	w.eventually("the database has failed", func() bool { return w.hook.hits() > 0 })
	w.hook.failWhen(nil)
	w.whole()
}

// TestSlotsOfWhatIsNotUndone: a deploy fails, and so does its undoing. Its VMs have rows
// and keep their slots; housekeeping goes on from there.
func TestSlotsOfWhatIsNotUndone(t *testing.T) {
	w := newWorld(t, "subnet = \"172.16.0.0/28\"\n")
	w.faults.kernel.when(func(op string) error {
		if strings.HasPrefix(op, "create") {
			return errBroken
		}
		return nil
	})
	w.hook.failWhen(func(op effect.Op) bool { return op == "store.retire" })
	if err := w.deploy("web", 2); !errors.Is(err, errBroken) {
		t.Fatalf("error %v", err)
	}
	if used, _, _ := w.Slots(); used != 2 {
		t.Errorf("%d slots used, and 2 VMs have rows", used)
	}
	w.faults.kernel.when(nil)
	w.hook.failWhen(nil)
	w.must(w.deploy("next", 2))
	w.whole()
}

// TestBrokenOffUpdate stands for a crash in the middle of a deploy that changes what
// VMs run, and takes one away: the app's row is ahead of its VMs.
func TestBrokenOffUpdate(t *testing.T) {
	w := newWorld(t, "")
	w.must(w.deploy("web", 3))
	app, err := w.store.App(t.Context(), "web")
	w.must(err)
	app.Spec.Scale, app.Spec.MemoryMiB = 2, 256
	_, _, err = w.store.Create(t.Context(), app, nil)
	w.must(err)
	w.restart()
	w.eventually("the VMs are as the app's row says", func() bool {
		vms, err := w.VMs(context.Background())
		w.must(err)
		return len(vms) == 2 && vms[0].Spec.MemoryMiB == 256 && vms[1].Spec.MemoryMiB == 256
	})
	w.whole()
}

// TestNewTAPThatNoVMMHas stands for a crash between the making of a TAP anew and the
// restart of its VM.
func TestNewTAPThatNoVMMHas(t *testing.T) {
	w := newWorld(t, "")
	w.must(w.deploy("web", 2))
	lost, kept := w.vm("web-0"), w.vm("web-1")
	w.kernel.RemoveLink(lost.Slot.TAP())
	_, err := w.net.Repair(t.Context())
	w.must(err)
	w.restart()
	w.eventually("web-0 is restarted", func() bool { return w.vm("web-0").Process != lost.Process })
	w.whole()
	if now := w.vm("web-1").Process; now != kept.Process {
		t.Error("a VM that lost nothing was restarted")
	}
}

// TestFoldersOfNoVM: those of VMs that are gone go at the next start, and nothing else.
func TestFoldersOfNoVM(t *testing.T) {
	w := newWorld(t, "")
	w.must(w.deploy("web", 1))
	dir, made := filepath.Join(w.dir, "vms"), t.TempDir()
	for _, name := range []string{"77", "lost+found"} {
		w.must(os.MkdirAll(filepath.Join(made, name, "sub"), 0o700))
		w.must(os.Rename(filepath.Join(made, name), filepath.Join(dir, name))) // housekeeping may be at it already
	}
	w.restart()
	w.eventually("folder 77 is gone", func() bool { return !exists(filepath.Join(dir, "77")) })
	if !exists(filepath.Join(dir, "1")) || !exists(filepath.Join(dir, "lost+found")) {
		t.Error("a folder that is needed is gone")
	}
}

// TestDetachIsUndone: an attachment whose row cannot be removed stays, with the very TAP
// that its VMM has open.
func TestDetachIsUndone(t *testing.T) {
	w := newWorld(t, "")
	_, err := w.Attach(t.Context(), "mine", "web")
	w.must(err)
	_, err = w.Attach(t.Context(), "other", "web")
	w.must(err)
	before, journal := w.text(), len(w.kernel.Journal())
	w.hook.failWhen(func(op effect.Op) bool { return op == "store.remove" })
	if err := w.Detach(t.Context(), "mine"); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
	w.hook.failWhen(nil)
	if after := w.text(); after != before {
		t.Errorf("there was\n%s\nand is\n%s", before, after)
	}
	for _, op := range w.kernel.Journal()[journal:] {
		if strings.HasPrefix(op, "create") || strings.HasPrefix(op, "delete") {
			t.Errorf("%q: its VMM has no network any more", op)
		}
	}
	w.must(w.Detach(t.Context(), "mine"))
}

package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"zwrm/internal/effect"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/vmm"
)

func TestDeployScaleDestroy(t *testing.T) {
	w := newWorld(t, "")
	empty := w.text()
	w.must(w.deploy("web", 3))
	w.insync()
	if got := w.driver.alive(); got != 3 {
		t.Errorf("%d VMMs run, want 3", got)
	}
	vm := w.vm("web-1")
	if vm.State != model.Running || vm.Slot != 1 || vm.Process.PID == 0 {
		t.Errorf("VM %+v", vm)
	}
	_, err := w.Scale(t.Context(), "web", 1)
	w.must(err)
	w.insync()
	if got := w.driver.alive(); got != 1 {
		t.Errorf("%d VMMs run after scale 1", got)
	}
	_, err = w.Scale(t.Context(), "web", 2)
	w.must(err)
	if vm := w.vm("web-1"); vm.Slot != 3 {
		t.Errorf("web-1 is back on slot %d, which rests", vm.Slot)
	}
	w.must(w.Destroy(t.Context(), "web"))
	w.insync()
	if got := w.text(); got != empty {
		t.Errorf("left after destroy:\n%s\nbefore deploy:\n%s", got, empty)
	}
	if used, _, resting := w.Slots(); used != 0 || resting != 4 {
		t.Errorf("%d slots used, %d rest", used, resting)
	}
	if exists(filepath.Join(w.dir, "vms", "1")) {
		t.Error("the folder of a VM is left")
	}
}

// TestTransactionsOfADeploy: however many VMs are deployed, their rows are one
// transaction, and that they are being started is another. Only that one runs is noted
// of each by itself, as soon as it is so.
func TestTransactionsOfADeploy(t *testing.T) {
	for _, n := range []int{1, 12} {
		w := newWorld(t, "")
		counts := map[effect.Op]int{}
		var mu sync.Mutex
		w.hook.failWhen(func(op effect.Op) bool {
			mu.Lock()
			defer mu.Unlock()
			counts[op]++
			return false
		})
		w.must(w.deploy("web", n))
		mu.Lock()
		if counts["store.create"] != 1 || counts["store.update-vm"] != 1+n {
			t.Errorf("a deploy of %d VMs made %v", n, counts)
		}
		mu.Unlock()
		w.hook.failWhen(nil)
	}
}

// TestDiskAndKernelAtOnce: the rows of new VMs are written while their links are made,
// and nothing is open before both are done.
func TestDiskAndKernelAtOnce(t *testing.T) {
	w := newWorld(t, "")
	made, written := make(chan struct{}), make(chan struct{})
	wait := func(what string, other chan struct{}) error {
		select {
		case <-other:
			return nil
		case <-time.After(10 * time.Second):
			return fmt.Errorf("%s waits for the other", what)
		}
	}
	w.hook.failWhen(func(op effect.Op) bool {
		if op != "store.create" {
			return false
		}
		close(written)
		return wait("the disk", made) != nil
	})
	w.faults.kernel.when(func(op string) error {
		switch {
		case op == "create zvm0":
			close(made)
			return wait("the kernel", written)
		case strings.HasPrefix(op, "group"):
			if _, err := w.store.VM(context.Background(), "one"); err != nil {
				return fmt.Errorf("opened without a row: %w", err)
			}
		}
		return nil
	})
	_, err := w.Attach(t.Context(), "one", "web")
	w.must(err)
	w.insync()
}

// TestAllOrNothing deploys 10 VMs of which the 7th fails, in each way it can.
func TestAllOrNothing(t *testing.T) {
	broken := errors.New("broken on purpose")
	seventh := func(op string) error {
		if strings.Contains(op, "zvm8") {
			return broken
		}
		return nil
	}
	breakLink := func(w *world) {
		w.faults.kernel.when(func(op string) error {
			if strings.HasPrefix(op, "create") {
				return seventh(op)
			}
			return nil
		})
	}
	breakRows := func(w *world) { w.hook.failWhen(func(op effect.Op) bool { return op == "store.create" }) }
	tests := []struct {
		name     string
		sabotage func(w *world)
		mend     func(w *world)
	}{
		{"rows", breakRows, func(w *world) { w.hook.failWhen(nil) }},
		{"rows and link", func(w *world) {
			breakRows(w)
			breakLink(w)
		}, func(w *world) {
			w.hook.failWhen(nil)
			w.faults.kernel.when(nil)
		}},
		{"VMM", func(w *world) {
			w.driver.failWhen(func(s vmm.Spec) error {
				if s.Name == "new-6" {
					return broken
				}
				return nil
			})
		}, func(w *world) { w.driver.failWhen(nil) }},
		{"link", breakLink, func(w *world) { w.faults.kernel.when(nil) }},
		{"group", func(w *world) {
			w.faults.kernel.when(func(op string) error {
				if strings.HasPrefix(op, "group") {
					return seventh(op)
				}
				return nil
			})
		}, func(w *world) { w.faults.kernel.when(nil) }},
		{"rule", func(w *world) {
			w.faults.rules.when(func(op string) error {
				if op == "add new" {
					return broken
				}
				return nil
			})
		}, func(w *world) { w.faults.rules.when(nil) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, "")
			w.must(w.deploy("old", 2))
			before, alive := w.text(), w.driver.alive()
			test.sabotage(w)
			err := w.deploy("new", 10)
			test.mend(w)
			if !errors.Is(err, broken) && !errors.Is(err, errBroken) {
				t.Fatalf("error %v, want one that says why", err)
			}
			if got := w.text(); got != before {
				t.Errorf("left:\n%s\nbefore:\n%s", got, before)
			}
			if got := w.driver.alive(); got != alive {
				t.Errorf("%d VMMs run, %d before", got, alive)
			}
			w.insync()
		})
	}
}

func TestFailedScaleUpChangesNothing(t *testing.T) {
	w := newWorld(t, "")
	w.must(w.deploy("web", 2))
	before := w.text()
	w.driver.failWhen(func(s vmm.Spec) error {
		if s.Name == "web-4" {
			return errors.New("no memory: last words")
		}
		return nil
	})
	_, err := w.Scale(t.Context(), "web", 5)
	if err == nil || !strings.Contains(err.Error(), `start VM "web-4": no memory: last words`) {
		t.Fatalf("error %v", err)
	}
	if got := w.text(); got != before {
		t.Errorf("left:\n%s\nbefore:\n%s", got, before)
	}
}

func TestDeployAgainUpdates(t *testing.T) {
	w := newWorld(t, "")
	w.must(w.deploy("web", 2))
	slot, pid := w.vm("web-0").Slot, w.vm("web-0").Process.PID
	_, err := w.Deploy(t.Context(), "web", model.Spec{Image: "small", Scale: 2, MemoryMiB: 256})
	w.must(err)
	vm := w.vm("web-0")
	if vm.Slot != slot || vm.Process.PID == pid || vm.Spec.MemoryMiB != 256 {
		t.Errorf("web-0 after the update: %+v", vm)
	}
	if got := w.driver.alive(); got != 2 {
		t.Errorf("%d VMMs run", got)
	}
	before := w.text()
	w.driver.failWhen(func(s vmm.Spec) error {
		if s.Name == "web-1" && s.MemoryMiB == 512 {
			return errors.New("too much")
		}
		return nil
	})
	if _, err := w.Deploy(t.Context(), "web", model.Spec{Image: "small", Scale: 4, MemoryMiB: 512}); err == nil {
		t.Fatal("deployed although web-1 did not start")
	}
	if got := w.text(); got != before {
		t.Errorf("left:\n%s\nbefore:\n%s", got, before)
	}
	w.insync()
}

func TestBadRequestsChangeNothing(t *testing.T) {
	w := newWorld(t, "subnet = \"172.16.0.0/28\"\n")
	w.must(w.deploy("web", 2))
	before := w.text()
	ctx := t.Context()
	deploy := func(name string, spec model.Spec) func() error {
		return func() error { _, err := w.Deploy(ctx, model.Name(name), spec); return err }
	}
	tests := []struct {
		name string
		do   func() error
		code model.Code
		want string
	}{
		{"memory too small", deploy("a", model.Spec{Image: "small", MemoryMiB: 8}), model.Invalid, "32 to 1048576"},
		{"memory too large", deploy("a", model.Spec{Image: "small", MemoryMiB: 1 << 30}), model.Invalid, "out of range"},
		{"cpus", deploy("a", model.Spec{Image: "small", CPUs: 65}), model.Invalid, "1 to 64"},
		{"negative cpus", deploy("a", model.Spec{Image: "small", CPUs: -1}), model.Invalid, "out of range"},
		{"no image", deploy("a", model.Spec{Scale: 1}), model.Invalid, "no image named"},
		{"unknown image", deploy("a", model.Spec{Image: "nope", Scale: 1}), model.NotFound, `no image named "nope"`},
		{"name too long for VMs", deploy(strings.Repeat("a", 62), model.Spec{Image: "small"}), model.Invalid, "too long names"},
		{"scale below 0", deploy("a", model.Spec{Image: "small", Scale: -1}), model.Invalid, "below 0"},
		{"past the capacity", deploy("a", model.Spec{Image: "small", Scale: 5}), model.Exhausted, "which is 4 VMs: 2 are free"},
		{"past what is free", deploy("a", model.Spec{Image: "small", Scale: 3}), model.Exhausted, "2 of the subnet's blocks are free"},
		{"scale past what is free", func() error { _, err := w.Scale(ctx, "web", 5); return err }, model.Exhausted, "2 are free"},
		{"scale of no app", func() error { _, err := w.Scale(ctx, "nope", 1); return err }, model.NotFound, `no app named "nope"`},
		{"destroy of no app", func() error { return w.Destroy(ctx, "nope") }, model.NotFound, `no app named "nope"`},
		{"restart of no VM", func() error { return w.Restart(ctx, "nope") }, model.NotFound, `no VM named "nope"`},
		{"detach of a VM", func() error { return w.Detach(ctx, "web-0") }, model.Conflict, "not an attachment"},
		{"attach of a taken name", func() error { _, err := w.Attach(ctx, "web-0", "web"); return err }, model.Conflict, "exists already"},
		{"image in use", func() error { return w.RemoveImage(ctx, "small") }, model.Conflict, `in use by app "web"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := test.do()
			var problem *model.Problem
			if !errors.As(err, &problem) || problem.Code != test.code || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want code %s and %q", err, test.code, test.want)
			}
			if got := w.text(); got != before {
				t.Errorf("changed:\n%s\nbefore:\n%s", got, before)
			}
		})
	}
}

func TestAttachments(t *testing.T) {
	w := newWorld(t, "")
	empty := w.text()
	a, err := w.Attach(t.Context(), "mine", "lab")
	w.must(err)
	_, err = w.Attach(t.Context(), "yours", "lab")
	w.must(err)
	if a.State != model.Running || a.AppName != "lab" || a.Slot != 0 {
		t.Errorf("attachment %+v", a)
	}
	w.insync()
	if _, err := w.Scale(t.Context(), "lab", 1); err == nil {
		t.Error("scaled an app without an image")
	}
	w.must(w.Detach(t.Context(), "mine"))
	w.must(w.Detach(t.Context(), "yours"))
	if got := w.text(); got != empty {
		t.Errorf("left:\n%s\nbefore:\n%s", got, empty)
	}
}

func TestDeadVMMIsStartedAgain(t *testing.T) {
	w := newWorld(t, "")
	w.must(w.deploy("web", 2))
	vm := w.vm("web-0")
	process, err := vmm.Adopt(vm.Process, nil)
	w.must(err)
	w.must(process.Kill(t.Context()))
	w.eventually("web-0 runs again", func() bool {
		now := w.vm("web-0")
		return now.State == model.Running && now.Process != vm.Process
	})
	if now := w.vm("web-0"); now.Slot != vm.Slot {
		t.Errorf("slot %d became %d", vm.Slot, now.Slot)
	}
	w.insync()
}

func TestDyingVMMIsClosedAndRetried(t *testing.T) {
	w := newWorld(t, "")
	w.must(w.deploy("web", 1))
	vm := w.vm("web-0")
	w.driver.failWhen(func(vmm.Spec) error { return errors.New("disk is gone") })
	process, err := vmm.Adopt(vm.Process, nil)
	w.must(err)
	w.must(process.Kill(t.Context()))
	w.eventually("the reason is in the row", func() bool {
		now := w.vm("web-0")
		return now.State == model.Failed && strings.Contains(now.Reason, "disk is gone")
	})
	w.driver.failWhen(nil)
	w.eventually("web-0 runs again", func() bool { return w.vm("web-0").State == model.Running })
	w.eventually("kernel and rows agree", func() bool {
		findings, err := w.net.Check(context.Background())
		return err == nil && len(findings) == 0
	})
}

// TestConcurrency has 50 requests at a time, for the same and different apps.
func TestConcurrency(t *testing.T) {
	w := newWorld(t, "")
	empty := w.text()
	var work sync.WaitGroup
	for i := range 50 {
		app := fmt.Sprintf("app%d", i%10)
		work.Go(func() {
			ctx := context.Background()
			var problem *model.Problem
			for step := range 4 {
				var err error
				switch (i + step) % 4 {
				case 0, 1:
					_, err = w.Deploy(ctx, model.Name(app), model.Spec{Image: "small", Scale: 1 + step})
				case 2:
					_, err = w.Scale(ctx, model.Name(app), step)
				case 3:
					err = w.Destroy(ctx, model.Name(app))
				}
				if errors.As(err, &problem) && problem.Code == model.NotFound {
					continue
				}
				if err != nil {
					t.Errorf("app %q: %v", app, err)
				}
			}
		})
	}
	work.Wait()
	w.insync()
	seen := map[ipam.Slot]model.Name{}
	vms, err := w.VMs(t.Context())
	w.must(err)
	for _, vm := range vms {
		if other, ok := seen[vm.Slot]; ok {
			t.Errorf("slot %d given to %q and %q", vm.Slot, other, vm.Name)
		}
		seen[vm.Slot] = vm.Name
	}
	if got := w.driver.alive(); got != len(vms) {
		t.Errorf("%d VMMs run for %d VMs", got, len(vms))
	}
	for i := range 10 {
		if err := w.Destroy(t.Context(), model.Name(fmt.Sprintf("app%d", i))); err != nil {
			var problem *model.Problem
			if !errors.As(err, &problem) || problem.Code != model.NotFound {
				t.Error(err)
			}
		}
	}
	if got := w.text(); got != empty || w.driver.alive() != 0 {
		t.Errorf("left: %d VMMs and\n%s", w.driver.alive(), got)
	}
}

// TestGuestIsToldItsNetwork looks at what the VMM is started with.
func TestGuestIsToldItsNetwork(t *testing.T) {
	w := newWorld(t, "dns = [\"192.0.2.53\"]\n")
	w.must(w.deploy("web", 1))
	_, err := w.Deploy(t.Context(), "disk", model.Spec{Image: "disk", Scale: 1, MemoryMiB: 64, CPUs: 2})
	w.must(err)
	want := []vmm.Spec{
		{
			Name: "web-0", CPUs: 1, MemoryMiB: 128, Kernel: "/kernel", MTU: 1500, TAP: "zvm0", Dir: filepath.Join(w.dir, "vms", "1"),
			GuestMAC: ipam.MAC{0x02, 0x5a, 172, 16, 0, 2}, UID: 1879048192,
			Args: "ip=172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0:off:192.0.2.53 console=ttyS0",
		},
		{
			Name: "disk-0", CPUs: 2, MemoryMiB: 64, Kernel: "/kernel", Rootfs: "/rootfs", MTU: 1500, TAP: "zvm1", Dir: filepath.Join(w.dir, "vms", "2"),
			GuestMAC: ipam.MAC{0x02, 0x5a, 172, 16, 0, 6}, UID: 1879048193,
			Args: "ip=172.16.0.6::172.16.0.5:255.255.255.252:disk-0:eth0:off:192.0.2.53 root=/dev/vda rw console=ttyS0",
		},
	}
	for i, got := range w.driver.specs {
		if got != want[i] {
			t.Errorf("got\n%+v\nwant\n%+v", got, want[i])
		}
	}
}

// TestReconnect restarts the VM whose TAP was made anew, and no other.
func TestReconnect(t *testing.T) {
	w := newWorld(t, "")
	w.must(w.deploy("web", 2))
	_, err := w.Attach(t.Context(), "mine", "web")
	w.must(err)
	w.net.Rebuilt() // nothing was missing so far but at the start
	lost, kept := w.vm("web-0"), w.vm("web-1")
	w.kernel.RemoveLink(lost.Slot.TAP())
	w.kernel.RemoveLink(w.vm("mine").Slot.TAP())
	_, err = w.net.Repair(t.Context())
	w.must(err)
	w.must(w.Reconnect(t.Context(), w.net.Rebuilt()))
	if now := w.vm("web-0"); now.State != model.Running || now.Process == lost.Process {
		t.Errorf("the VM that lost its TAP was not restarted: %+v", now)
	}
	if now := w.vm("web-1"); now.Process != kept.Process {
		t.Errorf("a VM that lost nothing was restarted: %+v", now)
	}
	if slots := w.net.Rebuilt(); len(slots) != 0 {
		t.Errorf("still to reconnect: %v", slots)
	}
	w.insync()
}

// TestDestroyWithoutTAP: a TAP that somebody deleted does not stand in the way of
// removing its VM.
func TestDestroyWithoutTAP(t *testing.T) {
	w := newWorld(t, "")
	empty := w.text()
	w.must(w.deploy("web", 3))
	w.kernel.RemoveLink("zvm1")
	w.must(w.Destroy(t.Context(), "web"))
	if got := w.text(); got != empty || w.driver.alive() != 0 {
		t.Errorf("left: %d VMMs and\n%s", w.driver.alive(), got)
	}
	w.insync()
}

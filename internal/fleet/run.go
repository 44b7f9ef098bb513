package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"zwrm/internal/event"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/vmm"
)

// rootArgs has the guest boot from its image's root file system, which the
// drivers make its first disk, unless the image's arguments name another.
const rootArgs = "root=/dev/vda rw"

// startNew notes that the VMs are being started, of all in one transaction, and
// starts them.
func (f *Fleet) startNew(ctx context.Context, vms []model.VM) error {
	if len(vms) == 0 {
		return nil
	}
	for i := range vms {
		vms[i].State = model.Starting
	}
	if err := f.Store.UpdateVM(ctx, vms...); err != nil {
		return err
	}
	return f.startAll(ctx, vms)
}

// startAll starts the VMMs of the VMs, a bounded number at once. On the first
// error it gives up those not started yet.
func (f *Fleet) startAll(ctx context.Context, vms []model.VM) error {
	starts, ctx := errgroup.WithContext(ctx)
	for _, vm := range vms {
		starts.Go(func() error {
			select {
			case f.starts <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			defer func() { <-f.starts }()
			return f.start(ctx, vm)
		})
	}
	return starts.Wait()
}

// start runs the VMM of a VM that is noted as starting, and notes it in the VM's
// row. A crash between the two leaves a process without a row that names it; Load
// finds it by its folder.
func (f *Fleet) start(ctx context.Context, vm model.VM) error {
	if err := f.vacant(vm); err != nil {
		return fmt.Errorf("start VM %q: %w", vm.Name, err)
	}
	spec, err := f.vmmSpec(vm)
	if err != nil {
		return fmt.Errorf("start VM %q: %w", vm.Name, err)
	}
	process, err := f.VMMs.Start(ctx, spec)
	if err != nil {
		return fmt.Errorf("start VM %q: %w", vm.Name, err)
	}
	vm.State, vm.Process, vm.Reason = model.Running, process.Identity(), ""
	if err := f.Store.UpdateVM(ctx, vm); err != nil {
		stopped := process.Stop(context.WithoutCancel(ctx), f.Timing.Grace)
		if stopped != nil {
			f.watch(vm, process) // it may run on: whoever removes or restarts the VM stops it
		}
		return errors.Join(err, stopped)
	}
	f.watch(vm, process)
	f.Events.Publish(event.VM, string(vm.Name), "running")
	return nil
}

// vmmSpec returns what the VM's VMM is started with.
func (f *Fleet) vmmSpec(vm model.VM) (vmm.Spec, error) {
	img, err := f.Images.Get(vm.Spec.Image)
	if err != nil {
		return vmm.Spec{}, err
	}
	args := []string{f.Layout.KernelArgs(vm.Slot, string(vm.Name), f.DNS)}
	if img.Rootfs != "" && !strings.Contains(" "+img.Args, " root=") {
		args = append(args, rootArgs)
	}
	if img.Args != "" {
		args = append(args, img.Args) // last: of two, the kernel takes the later one
	}
	return vmm.Spec{
		Name:      vm.Name,
		CPUs:      vm.Spec.CPUs,
		MemoryMiB: vm.Spec.MemoryMiB,
		Kernel:    img.Kernel,
		Initrd:    img.Initrd,
		Rootfs:    img.Rootfs,
		Args:      strings.Join(args, " "),
		TAP:       vm.Slot.TAP(),
		GuestMAC:  f.Layout.GuestMAC(vm.Slot),
		MTU:       f.MTU(),
		Dir:       f.dir(vm.ID),
		UID:       f.UIDBase + uint32(vm.Slot),
	}, nil
}

// watch keeps the machine in mind and sees to it when its VMM ends by itself.
func (f *Fleet) watch(vm model.VM, process Process) {
	f.mu.Lock()
	f.machines[vm.ID] = &machine{process: process, since: time.Now()}
	f.mu.Unlock()
	f.work.Go(func() {
		select {
		case <-process.Done():
			f.died(vm, process)
		case <-f.life.Done():
		}
	})
}

// runs reports whether the VM has a VMM.
func (f *Fleet) runs(id model.VMID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.machines[id] != nil
}

// stop ends the VM's VMM and waits until it is gone. Its TAP is free then.
func (f *Fleet) stop(ctx context.Context, vm model.VM) error {
	f.mu.Lock()
	delete(f.retries, vm.ID)
	f.mu.Unlock()
	return f.halt(ctx, vm)
}

// halt is stop for a VM that goes on to count its failed starts.
func (f *Fleet) halt(ctx context.Context, vm model.VM) error {
	f.mu.Lock()
	m := f.machines[vm.ID]
	delete(f.machines, vm.ID) // from here on its end is no accident
	f.mu.Unlock()
	if m == nil {
		return nil
	}
	if err := m.process.Stop(ctx, f.Timing.Grace); err != nil {
		f.mu.Lock()
		f.machines[vm.ID] = m
		f.mu.Unlock()
		return fmt.Errorf("stop VM %q: %w", vm.Name, err)
	}
	return nil
}

// Restart stops the VM's VMM and starts it again, on the same slot.
func (f *Fleet) Restart(ctx context.Context, name model.Name) error {
	vm, unlock, err := f.lockVM(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	switch {
	case vm.Attachment:
		return model.Problemf(model.Conflict, "%q is an attachment: its VMM is not ours to restart", name)
	case vm.State == model.Stopping:
		return model.Problemf(model.Conflict, "VM %q is being removed", name)
	}
	return f.restartOrFail(ctx, vm)
}

// restartOrFail restarts the VM. If it does not start it counts as failed, and is
// tried again later: it cannot be had back as it was, since it was stopped.
func (f *Fleet) restartOrFail(ctx context.Context, vm model.VM) error {
	err := f.restart(ctx, vm)
	if err != nil {
		err = errors.Join(err, f.fail(context.WithoutCancel(ctx), vm, err.Error()))
	}
	return err
}

// restart stops the VM and starts it with the spec in vm.
func (f *Fleet) restart(ctx context.Context, vm model.VM) error {
	if err := f.stop(ctx, vm); err != nil {
		return err
	}
	if err := f.reopen(ctx, vm); err != nil {
		return err
	}
	return f.start(ctx, vm)
}

// reopen opens the networks of VMs that are to be started again; those of failed
// VMs are closed.
func (f *Fleet) reopen(ctx context.Context, vms ...model.VM) error {
	defer f.Network.Begin()()
	for i := range vms {
		vms[i].State, vms[i].Process, vms[i].Reason = model.Starting, model.Process{}, ""
	}
	if err := f.Store.UpdateVM(ctx, vms...); err != nil {
		return err
	}
	return f.Network.Reopen(ctx, vms...)
}

// Reconnect restarts the VMs of slots whose TAP was made anew: their VMMs have the
// old one open, which is gone for good. VMs that do not run are left alone.
func (f *Fleet) Reconnect(ctx context.Context, slots []ipam.Slot) error {
	if len(slots) == 0 {
		return nil
	}
	vms, err := f.VMs(ctx)
	if err != nil {
		f.brokenOff.Store(true)
		return err
	}
	lost := make(map[ipam.Slot]bool, len(slots))
	for _, slot := range slots {
		lost[slot] = true
	}
	var restarts errgroup.Group
	restarts.SetLimit(cap(f.starts))
	errs := make([]error, len(vms))
	for i, vm := range vms {
		switch {
		case !lost[vm.Slot] || vm.State != model.Running:
		case vm.Attachment:
			f.Events.Publish(event.VM, string(vm.Name), "TAP made anew: its VMM must open it again")
		default:
			f.Log.Warn("restarting a VM whose TAP was gone", "vm", vm.Name)
			restarts.Go(func() error {
				errs[i] = f.Restart(ctx, vm.Name)
				return nil
			})
		}
	}
	err = errors.Join(restarts.Wait(), errors.Join(errs...))
	if err != nil {
		f.brokenOff.Store(true) // replug looks which of them have none
	}
	return err
}

// died is called when a VMM ended that nobody stopped.
func (f *Fleet) died(vm model.VM, process Process) {
	ctx := f.life
	unlock, err := f.apps.lock(ctx, vm.AppName)
	if err != nil {
		return // the daemon ends
	}
	defer unlock()
	f.mu.Lock()
	m := f.machines[vm.ID]
	mine := m != nil && m.process == process
	if mine {
		delete(f.machines, vm.ID)
		if time.Since(m.since) >= f.Timing.Stable {
			delete(f.retries, vm.ID)
		}
	}
	f.mu.Unlock()
	if !mine {
		return // stopped on purpose meanwhile
	}
	reason := "VMM ended by itself"
	if exit := process.Exit(); exit != "" {
		reason += ": " + exit
	}
	f.Log.Warn("VM failed", "vm", vm.Name, "reason", reason)
	if err := f.fail(ctx, vm, reason); err != nil {
		f.Log.Error("dead VM not closed", "vm", vm.Name, "error", err)
	}
}

// fail notes why the VM does not run, closes its network, and has it started
// again after a while.
func (f *Fleet) fail(ctx context.Context, vm model.VM, reason string) error {
	delay := f.nextRetry(vm.ID)
	f.Events.Publish(event.VM, string(vm.Name), fmt.Sprintf("%s; starting again in %s", reason, delay))
	f.retryAfter(vm, delay)
	vm.State, vm.Process, vm.Reason = model.Failed, model.Process{}, reason
	defer f.Network.Begin()()
	if err := f.Store.UpdateVM(ctx, vm); err != nil {
		f.brokenOff.Store(true) // its row says that it runs
		return err
	}
	return f.Network.Close(ctx, vm)
}

// nextRetry returns how long to wait before the VM is started again: twice as
// long each time, up to a bound.
func (f *Fleet) nextRetry(id model.VMID) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	delay := f.Timing.FirstRetry
	for range f.retries[id] {
		delay = min(2*delay, f.Timing.LastRetry)
	}
	f.retries[id]++
	return delay
}

func (f *Fleet) retryAfter(vm model.VM, delay time.Duration) {
	f.work.Go(func() {
		select {
		case <-time.After(delay):
			f.revive(vm.AppName, []model.VM{vm})
		case <-f.life.Done():
		}
	})
}

// revive starts failed VMs of an app again, as many at a time as may start at once.
// Requests for the app get their turn in between.
func (f *Fleet) revive(app model.Name, vms []model.VM) {
	for some := range slices.Chunk(vms, cap(f.starts)) {
		f.reviveSome(f.life, app, some)
	}
}

// reviveSome starts failed VMs again, unless they were removed or started meanwhile.
// One that does not start counts as failed once more, and stops no other.
func (f *Fleet) reviveSome(ctx context.Context, app model.Name, vms []model.VM) {
	unlock, err := f.apps.lock(ctx, app)
	if err != nil {
		return // the daemon ends
	}
	defer unlock()
	var failed []model.VM
	for _, vm := range vms {
		now, err := f.Store.VM(ctx, vm.Name)
		if err == nil && now.ID == vm.ID && now.State == model.Failed {
			failed = append(failed, now)
		}
	}
	if len(failed) == 0 {
		return
	}
	opened := f.reopen(ctx, slices.Clone(failed)...)
	var starts sync.WaitGroup
	for _, vm := range failed {
		starts.Go(func() {
			err := opened
			if err == nil {
				err = f.halt(ctx, vm) // when it failed to stop, its VMM may still run
			}
			if err == nil {
				err = f.startAll(ctx, []model.VM{vm})
			}
			if err != nil && ctx.Err() == nil {
				f.Log.Warn("VM not started again", "vm", vm.Name, "error", err)
				if err := f.fail(ctx, vm, err.Error()); err != nil {
					f.Log.Error("dead VM not closed", "vm", vm.Name, "error", err)
				}
			}
		})
	}
	starts.Wait()
}

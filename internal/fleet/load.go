package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"zwrm/internal/effect"
	"zwrm/internal/model"
	"zwrm/internal/store"
	"zwrm/internal/vmm"
)

// consoleLimit is how large a VM's console log may grow, in bytes, before its
// older half goes.
const consoleLimit = 4 << 20

// consolesAtOnce is how many console logs one round of housekeeping looks at. Each is
// some system calls, and with thousands of VMs nothing else would cost as much.
const consolesAtOnce = 256

// Load takes up what an earlier zwrmd left: slots, quarantine, and the VMMs that
// still run. VMs whose VMM is gone, after a reboot all of them, are marked
// failed, which keeps their networks closed until Run starts them again. It
// touches no link and no rule.
func (f *Fleet) Load(ctx context.Context) error {
	state, err := f.Store.State(ctx)
	if err != nil {
		return err
	}
	for _, rest := range state.Released {
		if int(rest.Slot) >= f.Layout.Capacity() {
			continue // freed when the subnet was larger
		}
		if err := f.slots.Rest(rest); err != nil {
			return fmt.Errorf("load freed slots: %w", err)
		}
	}
	// Last, since slots are handed out from behind the one reserved last.
	for _, vm := range state.VMs {
		if err := f.slots.Reserve(vm.Slot); err != nil {
			return fmt.Errorf("load VM %q: %w", vm.Name, err)
		}
	}
	if err := effect.Do(f.Hook, opMakeRoot, func() error { return os.MkdirAll(f.Dir, 0o700) }); err != nil {
		return fmt.Errorf("make folder of VMs: %w", err)
	}
	f.brokenOff.Store(true) // perhaps: tidy has a look
	f.rested.Store(len(state.Released) > 0)
	found, err := f.VMMs.Find(f.Dir)
	if err != nil {
		return err
	}
	if err := f.adoptAll(ctx, state.VMs, found); err != nil {
		return err
	}
	f.noteStrays(found)
	return nil
}

// machineOf is a VMM that lives and the VM that it is of.
type machineOf struct {
	vm      model.VM
	process Process
}

// adoptAll takes over the VMMs that live, and takes them out of those found. What it
// notes of VMs is one transaction: after a reboot it is something of each.
func (f *Fleet) adoptAll(ctx context.Context, vms []model.VM, found map[string]model.Process) error {
	var changed []model.VM
	var alive []machineOf
	for _, vm := range vms {
		folder := filepath.Base(f.dir(vm.ID))
		process := found[folder]
		if vm.Attachment || !f.itsOwn(vm, process) {
			process = model.Process{}
		} else {
			delete(found, folder)
		}
		if vm.Attachment {
			continue
		}
		now, adopted, err := f.adopt(vm, process)
		if err != nil {
			return fmt.Errorf("load VM %q: %w", vm.Name, err)
		}
		if now != vm {
			changed = append(changed, now)
		}
		if adopted != nil {
			alive = append(alive, machineOf{now, adopted})
		}
	}
	if len(changed) > 0 {
		if err := f.Store.UpdateVM(ctx, changed...); err != nil {
			return fmt.Errorf("load VMs: %w", err)
		}
	}
	for _, m := range alive { // last, since one that ends now changes its row
		f.watch(m.vm, m.process)
	}
	return nil
}

// adopt returns the VM as it is now, and its VMM if that lives. That of a VM whose
// row does not name it yet, since zwrmd died between start and note, goes by its
// folder.
func (f *Fleet) adopt(vm model.VM, found model.Process) (model.VM, Process, error) {
	process, err := f.VMMs.Adopt(vm.Process)
	if errors.Is(err, vmm.ErrGone) && found.PID != 0 {
		process, err = f.VMMs.Adopt(found)
	}
	switch {
	case errors.Is(err, vmm.ErrGone):
		if vm.State != model.Stopping { // else finishAll removes it
			vm.State, vm.Process, vm.Reason = model.Failed, model.Process{}, "VMM was gone when zwrmd started"
		}
		return vm, nil, nil
	case err != nil:
		return vm, nil, err
	}
	if vm.State != model.Stopping && (vm.State != model.Running || vm.Process != process.Identity()) {
		vm.State, vm.Process, vm.Reason = model.Running, process.Identity(), ""
	}
	return vm, process, nil
}

// sweep removes the folders of VMs that are gone. A VM's row is there before its
// folder, and its number is never used again, so a folder that is there before the
// rows are read is of one of them or of none. One in which a VMM was found stays, since
// the VMM is found by it.
func (f *Fleet) sweep(ctx context.Context) error {
	folders, err := os.ReadDir(f.Dir)
	if err != nil {
		return fmt.Errorf("look for folders of no VM: %w", err)
	}
	vms, err := f.VMs(ctx)
	if err != nil {
		return err
	}
	owned := map[string]bool{}
	for _, vm := range vms {
		owned[filepath.Base(f.dir(vm.ID))] = true
	}
	var errs []error
	for _, folder := range folders {
		name := folder.Name()
		stray := f.isStray(name)
		if _, err := strconv.ParseInt(name, 10, 64); err == nil && !owned[name] && !stray {
			errs = append(errs, f.removeFolder(filepath.Join(f.Dir, name)))
		}
	}
	return errors.Join(errs...)
}

func (f *Fleet) removeFolder(path string) error {
	return effect.Do(f.Hook, opRemoveFolder, func() error { return vmm.RemoveFolder(path) })
}

func (f *Fleet) kill(ctx context.Context, identity model.Process) error {
	process, err := f.VMMs.Adopt(identity)
	if errors.Is(err, vmm.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	return process.Stop(ctx, f.Timing.Grace)
}

// Run keeps house until ctx, the Fleet's life, ends: it starts VMs that should run and
// do not, stops VMMs that no VM owns, finishes removals that were broken off, bounds
// console logs and forgets slots whose quarantine is over.
func (f *Fleet) Run(ctx context.Context) error {
	defer f.work.Wait()
	vms, err := f.VMs(ctx)
	if ctx.Err() != nil {
		return nil // told to end before it began
	}
	if err != nil {
		return err
	}
	failed := map[model.Name][]model.VM{}
	for _, vm := range vms {
		if vm.State == model.Failed {
			failed[vm.AppName] = append(failed[vm.AppName], vm)
		}
	}
	for app, vms := range failed {
		f.work.Go(func() { f.revive(app, vms) })
	}
	f.work.Go(func() { f.keepStock(ctx) })
	ticker := time.NewTicker(f.Timing.Tick)
	defer ticker.Stop()
	for {
		if err := f.tidy(ctx); err != nil && ctx.Err() == nil {
			f.Log.Warn("housekeeping left something", "error", err)
		}
		select {
		case <-ticker.C:
			f.stirStock(false) // somebody may have deleted some of it
		case <-ctx.Done():
			return nil
		}
	}
}

// tidy is one round of housekeeping. What it costs does not grow with the rows,
// unless a change was broken off.
func (f *Fleet) tidy(ctx context.Context) error {
	errs := []error{f.prune(ctx), f.stopStrays(ctx)}
	if f.brokenOff.Swap(false) {
		err := f.finishAll(ctx)
		if err != nil {
			f.brokenOff.Store(true)
		}
		errs = append(errs, err)
	}
	for _, id := range f.nextConsoles() {
		if err := vmm.NewConsole(f.dir(id)).Trim(consoleLimit, f.Hook); err != nil {
			errs = append(errs, fmt.Errorf("bound console of VM %d: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// prune forgets the slots whose quarantine is over. Where none was in quarantine the
// last time, nor since, there is nothing to look for.
func (f *Fleet) prune(ctx context.Context) error {
	_, _, resting := f.slots.Counts()
	if !f.rested.Swap(resting > 0) && resting == 0 {
		return nil
	}
	err := f.Store.PruneReleased(ctx, time.Now())
	if err != nil {
		f.rested.Store(true)
	}
	return err
}

// nextConsoles returns the VMs whose consoles have their turn: all, or so many in turn.
// Meanwhile the size of a file that a VMM may write bounds them.
func (f *Fleet) nextConsoles() []model.VMID {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.consoles) == 0 {
		f.consoles = slices.Collect(maps.Keys(f.machines))
	}
	n := min(len(f.consoles), consolesAtOnce)
	some := slices.DeleteFunc(f.consoles[:n:n], func(id model.VMID) bool { return f.machines[id] == nil })
	f.consoles = f.consoles[n:]
	return some
}

// finishAll takes up every change that was broken off, sees to it that running VMs
// have a network, and removes the folders of those that are gone.
func (f *Fleet) finishAll(ctx context.Context) error {
	apps, err := f.Apps(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, app := range apps {
		if err := f.finish(ctx, app.Name); err != nil {
			errs = append(errs, fmt.Errorf("finish what was broken off in app %q: %w", app.Name, err))
		}
	}
	return errors.Join(append(errs, f.replug(ctx), f.sweep(ctx))...)
}

// replug restarts the VMs whose VMM runs and does not have the TAP that there is: that
// one was made anew, and then zwrmd died, or the restart failed.
func (f *Fleet) replug(ctx context.Context) error {
	vms, err := f.VMs(ctx)
	if err != nil {
		return err
	}
	vms = slices.DeleteFunc(vms, func(vm model.VM) bool { return vm.State != model.Running || !f.runs(vm.ID) })
	suspects, err := f.Network.Unplugged(ctx, vms...)
	if err != nil {
		return err
	}
	var errs []error
	for _, vm := range suspects {
		errs = append(errs, f.replugVM(ctx, vm))
	}
	return errors.Join(errs...)
}

// replugVM looks again while nobody else changes the VM, and restarts it.
func (f *Fleet) replugVM(ctx context.Context, vm model.VM) error {
	unlock, err := f.apps.lock(ctx, vm.AppName)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := f.Store.VM(ctx, vm.Name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case now.ID != vm.ID || now.State != model.Running || !f.runs(vm.ID):
		return nil
	}
	unplugged, err := f.Network.Unplugged(ctx, now)
	if err != nil || len(unplugged) == 0 {
		return err
	}
	f.Log.Warn("restarting a VM whose TAP was made anew", "vm", vm.Name)
	return f.restartOrFail(ctx, now)
}

// finish brings an app to its row. It removes what is on its way out: VMs in state
// stopping, and the app itself when it has neither image nor VMs. Whoever changes
// them right now holds the app's lock, and is done when we get it.
func (f *Fleet) finish(ctx context.Context, name model.Name) error {
	unlock, err := f.apps.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	app, err := f.Store.App(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	vms, err := f.Store.AppVMs(ctx, app.ID)
	if err != nil {
		return err
	}
	stopping := slices.DeleteFunc(slices.Clone(vms), func(vm model.VM) bool { return vm.State != model.Stopping })
	if len(stopping) > 0 || len(vms) == 0 && app.Spec.Image == "" {
		if err := f.shrink(ctx, app, stopping); err != nil {
			return err
		}
	}
	return f.level(ctx, app)
}

// level brings the VMs of an app to its spec, which is committed before any of them
// is touched: those past its scale go, and those that run something else, or that
// should run and do not, are restarted. Failed ones are tried again by themselves.
func (f *Fleet) level(ctx context.Context, app model.App) error {
	if app.Spec.Image == "" {
		return nil
	}
	vms, err := f.machinesOf(ctx, app)
	if err != nil {
		return err
	}
	keep := vms[:min(len(vms), app.Spec.Scale)]
	var errs []error
	for _, vm := range keep {
		if sameMachine(vm.Spec, app.Spec) && (vm.State == model.Failed || vm.State == model.Running && f.runs(vm.ID)) {
			continue
		}
		vm.Spec = app.Spec
		errs = append(errs, f.restartOrFail(ctx, vm))
	}
	if gone := vms[len(keep):]; len(gone) > 0 {
		errs = append(errs, f.shrink(ctx, app, gone))
	}
	return errors.Join(errs...)
}

package fleet

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"zwrm/internal/event"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// Destroy removes the app with all its VMs and attachments.
func (f *Fleet) Destroy(ctx context.Context, name model.Name) error {
	unlock, err := f.apps.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	app, err := f.App(ctx, name)
	if err != nil {
		return err
	}
	vms, err := f.Store.AppVMs(ctx, app.ID)
	if err != nil {
		return err
	}
	app.Spec = model.Spec{}
	// From here on it is done to its end, even if the one who asked goes away.
	if err := f.shrink(context.WithoutCancel(ctx), app, vms); err != nil {
		return fmt.Errorf("destroy app %q: %w", name, err)
	}
	f.Events.Publish(event.App, string(name), "destroyed")
	return nil
}

// shrink brings the app's row to the given spec and removes the VMs. An app
// that has no image goes with its last VM. The network is closed first and the
// rows go last, so that a crash or an error on the way leaves rows in state
// stopping; the next start, or housekeeping, takes up from there.
func (f *Fleet) shrink(ctx context.Context, app model.App, vms []model.VM) error {
	if _, err := f.retire(ctx, app, vms); err != nil {
		return err
	}
	return f.bury(ctx, app, vms)
}

// retire marks the VMs as going and cuts them off. Their marks are the point of no
// return: an error before them has changed nothing, and one after them is told, but
// undone by nobody, since housekeeping removes what is marked.
func (f *Fleet) retire(ctx context.Context, app model.App, vms []model.VM) (marked bool, err error) {
	defer f.Network.Begin()()
	if err := f.Store.Retire(ctx, app, ids(vms)); err != nil {
		f.brokenOff.Store(true) // the row may be that of a change which is undone here
		return false, err
	}
	if err := f.Network.Close(ctx, vms...); err != nil {
		f.brokenOff.Store(true)
		return true, err
	}
	return true, nil
}

// bury stops the VMMs of retired VMs, and removes networks and rows.
func (f *Fleet) bury(ctx context.Context, app model.App, vms []model.VM) (err error) {
	defer func() {
		if err != nil {
			f.brokenOff.Store(true)
		}
	}()
	var stops errgroup.Group
	for _, vm := range vms {
		stops.Go(func() error { return f.stop(ctx, vm) })
	}
	if err := stops.Wait(); err != nil {
		return err
	}
	rests := make([]ipam.Rest, len(vms))
	for i, vm := range vms {
		rests[i] = ipam.Rest{Slot: vm.Slot, Until: f.slots.Until()}
	}
	if err := f.unplug(ctx, app, vms, rests); err != nil {
		return err
	}
	f.rested.Store(true)
	f.slots.Release(rests...)
	for _, vm := range vms {
		if err := f.removeFolder(f.dir(vm.ID)); err != nil {
			f.Log.Warn("VM's folder stays until housekeeping", "vm", vm.Name, "error", err)
			f.brokenOff.Store(true)
		}
		f.Events.Publish(event.VM, string(vm.Name), "gone")
	}
	return nil
}

// unplug removes networks, then rows.
func (f *Fleet) unplug(ctx context.Context, app model.App, vms []model.VM, rests []ipam.Rest) error {
	defer f.stirStock(false)
	defer f.Network.Begin()()
	if err := f.Network.Remove(ctx, vms...); err != nil {
		return err
	}
	return f.dropRows(ctx, app, vms, rests)
}

// dropRows removes the VMs' rows, and with the last of them that of an app
// without an image.
func (f *Fleet) dropRows(ctx context.Context, app model.App, vms []model.VM, rests []ipam.Rest) error {
	last := model.AppID(0)
	if app.Spec.Image == "" {
		last = app.ID
	}
	return f.Store.Remove(ctx, ids(vms), rests, last)
}

func ids(vms []model.VM) []model.VMID {
	out := make([]model.VMID, len(vms))
	for i, vm := range vms {
		out[i] = vm.ID
	}
	return out
}

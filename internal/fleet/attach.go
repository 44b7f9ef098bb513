package fleet

import (
	"context"
	"errors"
	"time"

	"zwrm/internal/event"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/store"
)

// Attach makes a network for a VMM that somebody else runs. An app that is not
// there is made, without an image; it goes with its last attachment.
func (f *Fleet) Attach(ctx context.Context, name, appName model.Name) (model.VM, error) {
	unlock, err := f.apps.lock(ctx, appName)
	if err != nil {
		return model.VM{}, err
	}
	defer unlock()
	app, err := f.Store.App(ctx, appName)
	if errors.Is(err, store.ErrNotFound) {
		app, err = model.App{Name: appName, CreatedAt: time.Now()}, nil
	}
	if err != nil {
		return model.VM{}, err
	}
	_, vms, err := f.plug(ctx, app, app.Spec, []model.VM{{
		AppName: appName, Name: name, State: model.Running, Attachment: true, CreatedAt: time.Now(),
	}})
	if err != nil {
		return model.VM{}, err
	}
	f.Events.Publish(event.VM, string(name), "attached")
	return vms[0], nil
}

// Detach takes an attachment's network away. Its VMM must have let go of the TAP.
func (f *Fleet) Detach(ctx context.Context, name model.Name) error {
	vm, unlock, err := f.lockVM(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if !vm.Attachment {
		return model.Problemf(model.Conflict, "%q is a VM of app %q, not an attachment", name, vm.AppName).
			WithHint("zwrm scale %s N removes VMs", vm.AppName)
	}
	app, err := f.App(ctx, vm.AppName)
	if err != nil {
		return err
	}
	return f.release(context.WithoutCancel(ctx), app, vm)
}

// release removes an attachment. Nobody has to be stopped in between, so that closing
// its network and removing its row are all, and the row is the point of no return: a
// crash before that leaves an attachment whose network the next start opens again.
func (f *Fleet) release(ctx context.Context, app model.App, vm model.VM) error {
	defer f.stirStock(false)
	defer f.Network.Begin()()
	rest := ipam.Rest{Slot: vm.Slot, Until: f.slots.Until()}
	err := f.Network.Close(ctx, vm)
	if err == nil {
		err = f.dropRows(ctx, app, []model.VM{vm}, []ipam.Rest{rest})
	}
	if err != nil && vm.State.Open() {
		err = errors.Join(err, f.Network.Reopen(ctx, vm))
	}
	if err != nil {
		return err
	}
	err = f.Network.Remove(ctx, vm)
	f.slots.Release(rest) // behind that: who gets the slot next must find it given up
	f.Events.Publish(event.VM, string(vm.Name), "gone")
	return err
}

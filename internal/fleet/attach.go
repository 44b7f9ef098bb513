package fleet

import (
	"context"
	"errors"
	"time"

	"zwrm/internal/event"
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
	return f.shrink(context.WithoutCancel(ctx), app, []model.VM{vm})
}

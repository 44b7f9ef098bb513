package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"zwrm/internal/model"
	"zwrm/internal/store"
	"zwrm/internal/vmm"
)

// Apps returns every app, by name.
func (f *Fleet) Apps(ctx context.Context) ([]model.App, error) { return f.Store.Apps(ctx) }

// App returns the app, or a Problem that says there is none.
func (f *Fleet) App(ctx context.Context, name model.Name) (model.App, error) {
	app, err := f.Store.App(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return app, model.Problemf(model.NotFound, "no app named %q", name).WithHint("zwrm apps lists the apps")
	}
	return app, err
}

// VM returns the VM, or a Problem that says there is none.
func (f *Fleet) VM(ctx context.Context, name model.Name) (model.VM, error) {
	vm, err := f.Store.VM(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return vm, model.Problemf(model.NotFound, "no VM named %q", name).WithHint("zwrm ps lists the VMs")
	}
	return vm, err
}

// VMs returns every VM and attachment, by app and number.
func (f *Fleet) VMs(ctx context.Context) ([]model.VM, error) {
	vms, err := f.Store.VMs(ctx)
	for rest := vms; len(rest) > 0; { // they come by app: to sort all of 16,384 as one takes three times as long
		app := rest[0].App
		n := slices.IndexFunc(rest, func(vm model.VM) bool { return vm.App != app })
		if n < 0 {
			n = len(rest)
		}
		slices.SortFunc(rest[:n], byNumber)
		rest = rest[n:]
	}
	return vms, err
}

// AppVMs returns the VMs and attachments of an app, by number.
func (f *Fleet) AppVMs(ctx context.Context, app model.AppID) ([]model.VM, error) {
	vms, err := f.Store.AppVMs(ctx, app)
	slices.SortFunc(vms, byNumber)
	return vms, err
}

// byNumber orders the VMs of an app.
func byNumber(a, b model.VM) int {
	return cmp.Or(cmp.Compare(number(a), number(b)), cmp.Compare(a.Name, b.Name))
}

// Running returns how many VMs and attachments of each app run. Apps without one are
// left out.
func (f *Fleet) Running(ctx context.Context) (map[model.AppID]int, error) {
	counts, err := f.Store.Counts(ctx)
	running := map[model.AppID]int{}
	for key, n := range counts {
		if key.State == model.Running {
			running[key.App] = n
		}
	}
	return running, err
}

// Console writes what the guest said on its console, and with follow what it
// says from now on, until ctx ends.
func (f *Fleet) Console(ctx context.Context, name model.Name, w io.Writer, follow bool) error {
	vm, err := f.VM(ctx, name)
	if err != nil {
		return err
	}
	if vm.Attachment {
		return model.Problemf(model.Conflict, "%q is an attachment: its VMM has its console", name)
	}
	return vmm.NewConsole(f.dir(vm.ID)).Copy(ctx, w, follow)
}

// Await waits until every guest of the app answers on its address. When ctx ends
// before, the error names one that does not.
func (f *Fleet) Await(ctx context.Context, name model.Name) error {
	app, err := f.App(ctx, name)
	if err != nil {
		return err
	}
	vms, err := f.machinesOf(ctx, app)
	if err != nil {
		return err
	}
	var pings errgroup.Group
	for _, vm := range vms {
		pings.Go(func() error {
			guest := f.Layout.Guest(vm.Slot)
			if err := f.Pinger.Ping(ctx, guest); err != nil {
				return model.Problemf(model.Internal, "VM %q does not answer on %s: %w", vm.Name, guest, err).
					WithHint("its VMM still runs; zwrm logs %s shows the guest's console", vm.Name)
			}
			return nil
		})
	}
	return pings.Wait()
}

// RemoveImage removes an image that no app runs.
func (f *Fleet) RemoveImage(ctx context.Context, name model.Name) error {
	f.images.Lock()
	defer f.images.Unlock()
	apps, err := f.Apps(ctx)
	if err != nil {
		return err
	}
	for _, app := range apps {
		if app.Spec.Image == name {
			return model.Problemf(model.Conflict, "image %q is in use by app %q", name, app.Name).
				WithHint("zwrm destroy %s first", app.Name)
		}
	}
	if err := f.Images.Remove(name); err != nil {
		return fmt.Errorf("remove image %q: %w", name, err)
	}
	return nil
}

// States returns how many VMs and attachments are in each state.
func (f *Fleet) States() (map[model.State]int, error) {
	counts, err := f.Store.Counts(f.life)
	states := map[model.State]int{}
	for key, n := range counts {
		states[key.State] += n
	}
	return states, err
}

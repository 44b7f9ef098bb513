package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"zwrm/internal/event"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/store"
)

// Deploy makes an app, or brings an existing one to the spec: VMs are added or
// removed, and those that run something else are restarted one by one on their
// own slots. When a VM cannot be started, everything is as it was before.
func (f *Fleet) Deploy(ctx context.Context, name model.Name, spec model.Spec) (model.App, error) {
	f.images.RLock()
	defer f.images.RUnlock()
	if err := f.checkName(name); err != nil {
		return model.App{}, err
	}
	spec, err := f.checkSpec(spec)
	if err != nil {
		return model.App{}, err
	}
	unlock, err := f.apps.lock(ctx, name)
	if err != nil {
		return model.App{}, err
	}
	defer unlock()
	app, err := f.Store.App(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		app, err = model.App{Name: name, CreatedAt: time.Now()}, nil
	}
	if err != nil {
		return model.App{}, err
	}
	return f.bring(ctx, app, spec)
}

// Scale changes how many VMs the app has. New VMs run what the others run.
func (f *Fleet) Scale(ctx context.Context, name model.Name, n int) (model.App, error) {
	if err := f.checkScale(n); err != nil {
		return model.App{}, err
	}
	unlock, err := f.apps.lock(ctx, name)
	if err != nil {
		return model.App{}, err
	}
	defer unlock()
	app, err := f.App(ctx, name)
	if err != nil {
		return model.App{}, err
	}
	if app.Spec.Image == "" && n > 0 {
		return app, model.Problemf(model.Conflict, "app %q has no image: it has attachments only", name).
			WithHint("zwrm deploy %s --image IMAGE gives it one", name)
	}
	spec := app.Spec
	spec.Scale = n
	return f.bring(ctx, app, spec)
}

// bring takes the app from its spec to another, in the order that can be undone:
// first what may fail, new VMs and restarts; last what cannot be had back.
func (f *Fleet) bring(ctx context.Context, app model.App, spec model.Spec) (model.App, error) {
	was := app.Spec
	vms, err := f.machinesOf(ctx, app)
	if err != nil {
		return app, err
	}
	app.Spec = spec
	app, grown, err := f.plug(ctx, app, was, fresh(app, vms))
	if err != nil {
		return app, err
	}
	keep := vms[:min(len(vms), spec.Scale)]
	gone := vms[len(keep):]
	if err = f.startNew(ctx, grown); err == nil {
		err = f.roll(ctx, keep, spec)
	}
	// The new VMs run; the old ones go even if the one who asked goes away.
	lasting := context.WithoutCancel(ctx)
	marked := false
	if err == nil && len(gone) > 0 {
		if marked, err = f.retire(lasting, app, gone); err != nil && !marked {
			err = errors.Join(err, f.unroll(lasting, keep, spec))
		}
	}
	switch {
	case err != nil && !marked:
		app.Spec = was
		return app, errors.Join(err, f.shrink(lasting, app, grown))
	case err == nil && len(gone) > 0:
		err = f.bury(lasting, app, gone)
	}
	if err != nil {
		return app, err
	}
	f.Events.Publish(event.App, string(app.Name), fmt.Sprintf("scale %d, image %s", spec.Scale, spec.Image))
	return app, nil
}

// fresh returns the rows of the VMs that the app lacks, without slots. They get
// the lowest numbers that are free.
func fresh(app model.App, have []model.VM) []model.VM {
	taken := map[model.Name]bool{}
	for _, vm := range have {
		taken[vm.Name] = true
	}
	var vms []model.VM
	for i := 0; len(have)+len(vms) < app.Spec.Scale; i++ {
		name := app.Name.VMName(i)
		if !taken[name] {
			vms = append(vms, model.VM{AppName: app.Name, Name: name, State: model.Pending, Spec: app.Spec, CreatedAt: time.Now()})
		}
	}
	return vms
}

// plug commits the app's spec and gives the new VMs slots, rows and networks:
// all of them, or none and the app's row as it was. The disk and the kernel work at the
// same time: no network is opened before the rows are on the disk.
func (f *Fleet) plug(ctx context.Context, app model.App, was model.Spec, vms []model.VM) (model.App, []model.VM, error) {
	slots, err := f.take(len(vms))
	if err != nil {
		return app, nil, err
	}
	for i := range vms {
		vms[i].Slot = slots[i]
	}
	defer f.stirStock(true)
	defer f.Network.Begin()()
	var networks errgroup.Group
	networks.Go(func() error { return f.Network.Make(ctx, vms...) })
	app, created, err := f.Store.Create(ctx, app, vms)
	failed := networks.Wait()
	if err != nil {
		if failed == nil {
			f.Network.Unmake(vms...)
		}
		f.slots.Return(slots...)
		return app, nil, errors.Join(conflict(err), failed)
	}
	if failed == nil {
		failed = f.Network.Open(ctx, created...)
	}
	if failed != nil {
		app.Spec = was
		return app, nil, errors.Join(failed, f.unplugNew(context.WithoutCancel(ctx), app, created, slots))
	}
	return app, created, nil
}

// unplugNew takes back the rows of VMs whose networks did not open. As long as they
// have rows they have their slots.
func (f *Fleet) unplugNew(ctx context.Context, app model.App, vms []model.VM, slots []ipam.Slot) error {
	err := f.Store.Retire(ctx, app, ids(vms))
	if err == nil {
		err = f.dropRows(ctx, app, vms, nil)
	}
	if err != nil {
		f.brokenOff.Store(true)
		return err
	}
	f.slots.Return(slots...) // nothing was sent from them, so they need no rest
	return nil
}

func (f *Fleet) take(n int) ([]ipam.Slot, error) {
	slots, err := f.slots.Take(n)
	var exhausted *ipam.ExhaustedError
	if errors.As(err, &exhausted) {
		return nil, &model.Problem{Code: model.Exhausted, Err: err,
			Hint: fmt.Sprintf("subnet %s holds %d VMs in all", f.Layout.Subnet(), f.Layout.Capacity())}
	}
	return slots, err
}

// roll restarts, one by one, the VMs that run something else than the spec. When
// one fails, those before it go back to what they ran.
func (f *Fleet) roll(ctx context.Context, vms []model.VM, spec model.Spec) error {
	for i, vm := range vms {
		if sameMachine(vm.Spec, spec) {
			continue
		}
		now := vm
		now.Spec = spec
		if err := f.restart(ctx, now); err != nil {
			err = fmt.Errorf("update VM %q: %w", vm.Name, err)
			return errors.Join(err, f.unroll(context.WithoutCancel(ctx), vms[:i+1], spec))
		}
	}
	return nil
}

// unroll has the VMs run again what they ran before they were brought to the spec.
func (f *Fleet) unroll(ctx context.Context, vms []model.VM, spec model.Spec) error {
	var errs []error
	for _, vm := range vms {
		if !sameMachine(vm.Spec, spec) {
			errs = append(errs, f.restartOrFail(ctx, vm))
		}
	}
	return errors.Join(errs...)
}

// sameMachine reports whether a VM of one spec is as good as one of the other.
func sameMachine(a, b model.Spec) bool {
	a.Scale, b.Scale = 0, 0
	return a == b
}

// machinesOf returns the VMs that ZWRM runs for the app, by number.
func (f *Fleet) machinesOf(ctx context.Context, app model.App) ([]model.VM, error) {
	if app.ID == 0 {
		return nil, nil
	}
	vms, err := f.Store.AppVMs(ctx, app.ID)
	if err != nil {
		return nil, err
	}
	vms = slices.DeleteFunc(vms, func(vm model.VM) bool { return vm.Attachment || vm.State == model.Stopping })
	slices.SortFunc(vms, func(a, b model.VM) int { return number(a) - number(b) })
	return vms, nil
}

// number returns the number at the end of a VM's name, -1 if it is none of the names
// that ZWRM gives to VMs.
func number(vm model.VM) int {
	digits, named := strings.CutPrefix(string(vm.Name), string(vm.AppName))
	if !named || len(digits) < 2 || digits[0] != '-' || digits[1] < '0' || digits[1] > '9' {
		return -1
	}
	n, err := strconv.Atoi(digits[1:])
	if err != nil {
		return -1
	}
	return n
}

// conflict makes a Problem of a name that is taken.
func conflict(err error) error {
	var exists *store.ExistsError
	if errors.As(err, &exists) {
		return &model.Problem{Code: model.Conflict, Err: err}
	}
	return err
}

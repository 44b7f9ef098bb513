package fleet

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"zwrm/internal/event"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/vmm"
)

// clockSlack is by how much the times of two clocks may differ.
const clockSlack = 2 * time.Second

// stray is a VMM in one of our folders that no row knows. Rows may be lost, so it is
// left alone for a while, which gives time to bring them back; its network is closed.
type stray struct {
	process model.Process
	since   time.Time
}

// Avoid keeps exactly these slots from being handed out, as far as no VM has them.
func (f *Fleet) Avoid(slots ...ipam.Slot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for slot := range f.avoided {
		if !slices.Contains(slots, slot) {
			delete(f.avoided, slot)
			f.slots.Release(ipam.Rest{Slot: slot, Until: f.slots.Until()})
		}
	}
	for _, slot := range slots {
		if _, ok := f.avoided[slot]; !ok && f.slots.Reserve(slot) == nil {
			f.avoided[slot] = struct{}{}
		}
	}
}

// noteStrays keeps VMMs in mind that no row knows.
func (f *Fleet) noteStrays(found map[string]model.Process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for folder, process := range found {
		f.strays[folder] = stray{process, time.Now()}
		f.Log.Warn("a VMM runs that no VM owns; it is stopped if that is still so later", "folder", folder, "pid", process.PID, "after", f.Timing.Stray)
		f.Events.Publish(event.Stray, "VMM "+folder, fmt.Sprintf("process %d runs, and no VM owns it: it is stopped if that is still so in %s", process.PID, f.Timing.Stray))
	}
}

// stopStrays stops the VMMs that no VM has owned for long.
func (f *Fleet) stopStrays(ctx context.Context) error {
	f.mu.Lock()
	due := map[string]stray{}
	for folder, s := range f.strays {
		if time.Since(s.since) >= f.Timing.Stray {
			due[folder] = s
		}
	}
	f.mu.Unlock()
	var errs []error
	for folder, s := range due {
		f.Log.Warn("stopping a VMM that no VM owns", "folder", folder, "pid", s.process.PID)
		err := f.kill(ctx, s.process)
		if err == nil {
			err = f.removeFolder(filepath.Join(f.Dir, folder))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("stop VMM of folder %q: %w", folder, err))
			continue
		}
		f.mu.Lock()
		delete(f.strays, folder)
		f.mu.Unlock()
		f.Events.Publish(event.Stray, "VMM "+folder, "stopped: no VM owned it")
	}
	return errors.Join(errs...)
}

func (f *Fleet) isStray(folder string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.strays[folder]
	return ok
}

// vacant returns an error while a stray has the VM's folder: ids begin anew in an empty
// database.
func (f *Fleet) vacant(vm model.VM) error {
	folder := filepath.Base(f.dir(vm.ID))
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.strays[folder]
	if !ok {
		return nil
	}
	if _, err := f.VMMs.Adopt(s.process); errors.Is(err, vmm.ErrGone) {
		delete(f.strays, folder)
		return nil
	}
	return model.Problemf(model.Conflict, "folder %q is that of process %d, a VMM that no VM owns", f.dir(vm.ID), s.process.PID).
		WithHint("were rows lost? zwrmd stops it at %s; to go on now: kill %d", s.since.Add(f.Timing.Stray).UTC().Format(time.RFC3339), s.process.PID)
}

// itsOwn reports whether a VMM may be that of the VM whose folder it runs in. One that
// began before the row was made is of another database.
func (f *Fleet) itsOwn(vm model.VM, found model.Process) bool {
	if f.Started == nil || found.PID == 0 || found == vm.Process {
		return true
	}
	began, err := f.Started(found)
	return err != nil || !began.Before(vm.CreatedAt.Add(-clockSlack))
}

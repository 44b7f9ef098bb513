package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// Create adds VMs with their slots to an app: a new one when app.ID is 0, else
// one that is there and whose spec becomes app.Spec. It returns both with their
// ids. The VMs' App and AppName are those of the app, whatever they say.
//
// The error is an *ExistsError when a name or a slot is taken, and ErrNotFound
// when the app of app.ID is gone; then nothing was added.
func (s *Store) Create(ctx context.Context, app model.App, vms []model.VM) (model.App, []model.VM, error) {
	created := make([]model.VM, len(vms))
	err := s.write(ctx, opCreate, func(tx txn) (err error) {
		if app.ID != 0 {
			err = updateApp(tx, app)
		} else {
			app.ID, err = insertApp(tx, app)
		}
		if err != nil {
			return err
		}
		copy(created, vms)
		return insertVMs(tx, app, created)
	})
	if err != nil {
		return model.App{}, nil, err
	}
	return app, created, nil
}

// UpdateVM sets the state, spec, process and reason of VMs: of all, or of none
// and ErrNotFound when one is gone.
func (s *Store) UpdateVM(ctx context.Context, vms ...model.VM) error {
	return s.write(ctx, opUpdateVM, func(tx txn) error {
		for _, vm := range vms {
			err := tx.change(`UPDATE vm SET state = ?, image = ?, memory_mib = ?, cpus = ?,
				pid = ?, start_time = ?, boot_id = ?, reason = ? WHERE id = ?`,
				vm.State, vm.Spec.Image, vm.Spec.MemoryMiB, vm.Spec.CPUs, vm.Process.PID, vm.Process.StartTime, vm.Process.BootID, vm.Reason, vm.ID)
			if err != nil {
				return fmt.Errorf("update VM %q: %w", vm.Name, err)
			}
		}
		return nil
	})
}

// Retire begins to scale an app down: it sets the app's spec, and the state of
// the VMs that have to go to Stopping.
func (s *Store) Retire(ctx context.Context, app model.App, ids []model.VMID) error {
	return s.write(ctx, opRetire, func(tx txn) error {
		if err := updateApp(tx, app); err != nil {
			return err
		}
		return setState(tx, model.Stopping, ids)
	})
}

// Remove deletes VMs, puts slots to rest, and deletes the app unless it is 0 or has
// VMs left. What is gone already is no error, so that a removal may be repeated. It
// is one to put a slot to rest that a VM has.
func (s *Store) Remove(ctx context.Context, vms []model.VMID, rests []ipam.Rest, app model.AppID) error {
	return s.write(ctx, opRemove, func(tx txn) error {
		if err := deleteVMs(tx, vms); err != nil {
			return err
		}
		if err := insertRests(tx, rests); err != nil {
			return err
		}
		if app == 0 {
			return nil
		}
		if _, err := tx.exec(`DELETE FROM app WHERE id = ? AND NOT EXISTS (SELECT 1 FROM vm WHERE vm.app = app.id)`, app); err != nil {
			return fmt.Errorf("delete app %d: %w", app, err)
		}
		return nil
	})
}

// PruneReleased forgets the freed slots whose rest is over.
func (s *Store) PruneReleased(ctx context.Context, now time.Time) error {
	return s.write(ctx, opPrune, func(tx txn) error {
		if _, err := tx.exec(`DELETE FROM released WHERE until <= ?`, nanos(now)); err != nil {
			return fmt.Errorf("prune released slots: %w", err)
		}
		return nil
	})
}

// SetMeta sets a fact.
func (s *Store) SetMeta(ctx context.Context, key Key, value string) error {
	return s.write(ctx, opSetMeta, func(tx txn) error { return setMeta(tx, key, value) })
}

func setMeta(tx txn, key Key, value string) error {
	_, err := tx.exec(`INSERT INTO meta (key, value) VALUES (?, ?)
		ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, value)
	if err != nil {
		return fmt.Errorf("set fact %q: %w", key, err)
	}
	return nil
}

func insertApp(tx txn, app model.App) (model.AppID, error) {
	id, err := nextAppID(tx)
	if err != nil {
		return 0, err
	}
	_, err = tx.exec(`INSERT INTO app (id, name, image, scale, memory_mib, cpus, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		id, app.Name, app.Spec.Image, app.Spec.Scale, app.Spec.MemoryMiB, app.Spec.CPUs, nanos(app.CreatedAt))
	if code(err) == sqlite3.SQLITE_CONSTRAINT_UNIQUE {
		return 0, &ExistsError{What: AppName, Name: app.Name}
	}
	if err != nil {
		return 0, fmt.Errorf("insert app %q: %w", app.Name, err)
	}
	return id, nil
}

// nextAppID hands out an app id next-fit: the search goes on behind the id that
// was handed out last and wraps around, so that the device group of an app that
// is gone is used again as late as possible.
func nextAppID(tx txn) (model.AppID, error) {
	text, err := meta(context.Background(), tx, lastAppID)
	if err != nil {
		return 0, err
	}
	var last uint64
	if text != "" {
		if last, err = strconv.ParseUint(text, 10, 32); err != nil {
			return 0, fmt.Errorf("read fact %q: %w", lastAppID, err)
		}
	}
	id := model.AppID(last)
	for range model.MaxAppID {
		if id++; id > model.MaxAppID {
			id = 1
		}
		used, err := one(context.Background(), tx, scanValue[bool], `SELECT EXISTS (SELECT 1 FROM app WHERE id = ?)`, id)
		if err != nil {
			return 0, fmt.Errorf("look for a free app id: %w", err)
		}
		if !used {
			return id, setMeta(tx, lastAppID, strconv.FormatUint(uint64(id), 10))
		}
	}
	return 0, fmt.Errorf("all %d app ids are in use", model.MaxAppID)
}

func updateApp(tx txn, app model.App) error {
	err := tx.change(`UPDATE app SET image = ?, scale = ?, memory_mib = ?, cpus = ? WHERE id = ?`,
		app.Spec.Image, app.Spec.Scale, app.Spec.MemoryMiB, app.Spec.CPUs, app.ID)
	if err != nil {
		return fmt.Errorf("update app %q: %w", app.Name, err)
	}
	return nil
}

// insertVMs inserts the VMs, takes their slots out of those that rest, and fills
// in what the rows made of the VMs.
func insertVMs(tx txn, app model.App, vms []model.VM) error {
	for i := range vms {
		vm := &vms[i]
		result, err := tx.exec(`INSERT INTO vm (app, name, slot, state, attachment, image, memory_mib, cpus,
			pid, start_time, boot_id, reason, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			app.ID, vm.Name, vm.Slot, vm.State, vm.Attachment,
			vm.Spec.Image, vm.Spec.MemoryMiB, vm.Spec.CPUs,
			vm.Process.PID, vm.Process.StartTime, vm.Process.BootID, vm.Reason, nanos(vm.CreatedAt))
		if code(err) == sqlite3.SQLITE_CONSTRAINT_UNIQUE {
			return taken(tx, *vm)
		}
		if err != nil {
			return fmt.Errorf("insert VM %q: %w", vm.Name, err)
		}
		id, err := result.LastInsertId()
		if err != nil {
			return fmt.Errorf("insert VM %q: %w", vm.Name, err)
		}
		if _, err := tx.exec(`DELETE FROM released WHERE slot = ?`, vm.Slot); err != nil {
			return fmt.Errorf("wake slot %d: %w", vm.Slot, err)
		}
		vm.ID, vm.App, vm.AppName = model.VMID(id), app.ID, app.Name
	}
	return nil
}

// taken returns which of the VM's name and slot another VM has.
func taken(tx txn, vm model.VM) error {
	exists, err := one(context.Background(), tx, func(scan scanFunc, e *ExistsError) error { return scan(&e.Name, &e.Slot) },
		`SELECT name, slot FROM vm WHERE name = ? OR slot = ? ORDER BY name = ? DESC LIMIT 1`, vm.Name, vm.Slot, vm.Name)
	if err != nil {
		return fmt.Errorf("look for VM %q: %w", vm.Name, err)
	}
	exists.What = VMSlot
	if exists.Name == vm.Name {
		exists.What = VMName
	}
	return &exists
}

func setState(tx txn, state model.State, ids []model.VMID) error {
	for _, id := range ids {
		if err := tx.change(`UPDATE vm SET state = ? WHERE id = ?`, state, id); err != nil {
			return fmt.Errorf("set state of VM %d: %w", id, err)
		}
	}
	return nil
}

func deleteVMs(tx txn, ids []model.VMID) error {
	for _, id := range ids {
		if _, err := tx.exec(`DELETE FROM vm WHERE id = ?`, id); err != nil {
			return fmt.Errorf("delete VM %d: %w", id, err)
		}
	}
	return nil
}

func insertRests(tx txn, rests []ipam.Rest) error {
	for _, rest := range rests {
		owner, err := one(context.Background(), tx, scanValue[model.Name], `SELECT name FROM vm WHERE slot = ?`, rest.Slot)
		if err == nil {
			return fmt.Errorf("rest slot %d: VM %q has it", rest.Slot, owner)
		}
		if !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("rest slot %d: %w", rest.Slot, err)
		}
		_, err = tx.exec(`INSERT INTO released (slot, until) VALUES (?, ?)
			ON CONFLICT (slot) DO UPDATE SET until = max(until, excluded.until)`, rest.Slot, nanos(rest.Until))
		if err != nil {
			return fmt.Errorf("rest slot %d: %w", rest.Slot, err)
		}
	}
	return nil
}

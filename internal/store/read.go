package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// State is everything that ZWRM intends.
type State struct {
	Apps     []model.App // ordered by id
	VMs      []model.VM  // ordered by id
	Released []ipam.Rest // freed slots that still rest, ordered by the end of it
}

// Key names a fact about the host that is kept with the rows.
type Key string

// The keys that zwrmd sets.
const (
	Subnet Key = "subnet" // that the slots were handed out of

	lastAppID Key = "last_app_id" // handed out
)

const (
	selectApp = `SELECT id, name, image, scale, memory_mib, cpus, created_at FROM app`
	selectVM  = selectVMFrom + `vm JOIN app ON app.id = vm.app`

	selectVMFrom = `SELECT vm.id, vm.app, app.name, vm.name, slot, state, attachment, vm.image, vm.memory_mib, vm.cpus,
		pid, start_time, boot_id, reason, vm.created_at FROM `
	selectReleased = `SELECT slot, until FROM released`
)

// State returns all rows as they stand at one moment.
func (s *Store) State(ctx context.Context) (State, error) {
	var state State
	err := s.read(ctx, func(conn *sql.Conn) (err error) {
		if state.Apps, err = list(ctx, conn, scanApp, selectApp+` ORDER BY id`); err != nil {
			return err
		}
		if state.VMs, err = allVMs(ctx, conn, "vm JOIN app ON app.id = vm.app ORDER BY vm.id"); err != nil {
			return err
		}
		state.Released, err = list(ctx, conn, scanRest, selectReleased+` ORDER BY until, slot`)
		return err
	})
	if err != nil {
		return State{}, fmt.Errorf("read state: %w", err)
	}
	return state, nil
}

// Apps returns every app, ordered by name.
func (s *Store) Apps(ctx context.Context) ([]model.App, error) {
	apps, err := list(ctx, s.readers, scanApp, selectApp+` ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("read apps: %w", err)
	}
	return apps, nil
}

// Count says which VMs were counted.
type Count struct {
	App   model.AppID
	State model.State
}

// Counts returns how many VMs and attachments each app has in each state. What there
// is none of is left out.
func (s *Store) Counts(ctx context.Context) (map[Count]int, error) {
	counts := map[Count]int{}
	_, err := list(ctx, s.readers, func(scan scanFunc, key *Count) error {
		var n int
		err := scan(&key.App, &key.State, &n)
		counts[*key] = n
		return err
	}, `SELECT app, state, count(*) FROM vm GROUP BY app, state`)
	if err != nil {
		return nil, fmt.Errorf("count VMs: %w", err)
	}
	return counts, nil
}

// App returns the app of that name, or ErrNotFound.
func (s *Store) App(ctx context.Context, name model.Name) (model.App, error) {
	app, err := one(ctx, s.lookups, scanApp, selectApp+` WHERE name = ?`, name)
	if err != nil {
		return model.App{}, fmt.Errorf("read app %q: %w", name, err)
	}
	return app, nil
}

// VM returns the VM of that name, or ErrNotFound.
func (s *Store) VM(ctx context.Context, name model.Name) (model.VM, error) {
	vm, err := one(ctx, s.lookups, scanVM, selectVM+` WHERE vm.name = ?`, name)
	if err != nil {
		return model.VM{}, fmt.Errorf("read VM %q: %w", name, err)
	}
	return vm, nil
}

// VMsAt returns the VMs that have one of the slots, ordered by id.
func (s *Store) VMsAt(ctx context.Context, slots ...ipam.Slot) ([]model.VM, error) {
	var vms []model.VM
	for part := range slices.Chunk(slots, 500) { // parameters of a query are bounded
		args := make([]any, len(part))
		for i, slot := range part {
			args[i] = slot
		}
		some, err := list(ctx, s.readers, scanVM, selectVM+` WHERE slot IN (?`+strings.Repeat(", ?", len(part)-1)+`) ORDER BY vm.id`, args...)
		if err != nil {
			return nil, fmt.Errorf("read VMs by slot: %w", err)
		}
		vms = append(vms, some...)
	}
	return vms, nil
}

// VMs returns every VM, by the names of their apps, then by id.
func (s *Store) VMs(ctx context.Context) ([]model.VM, error) {
	var vms []model.VM
	err := s.read(ctx, func(conn *sql.Conn) (err error) {
		vms, err = allVMs(ctx, conn, "app CROSS JOIN vm ON vm.app = app.id ORDER BY app.name, vm.id") // in this order nothing has to be sorted
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read VMs: %w", err)
	}
	return vms, nil
}

// allVMs returns every VM. With thousands of them, to grow the list would take more
// memory than it has in the end, and database/sql as long as SQLite.
func allVMs(ctx context.Context, conn *sql.Conn, from string) ([]model.VM, error) {
	count, err := one(ctx, conn, scanValue[int], `SELECT count(*) FROM vm`)
	if err != nil {
		return nil, err
	}
	vms := slices.Grow([]model.VM(nil), count)
	err = eachRow(ctx, conn, selectVMFrom+from, func(r row) error {
		vms = append(vms, model.VM{})
		return scanVM(r.scan, &vms[len(vms)-1])
	})
	return vms, err
}

// AppVMs returns the app's VMs, attachments and those on their way out included,
// ordered by id.
func (s *Store) AppVMs(ctx context.Context, app model.AppID) ([]model.VM, error) {
	vms, err := list(ctx, s.readers, scanVM, selectVM+` WHERE vm.app = ? ORDER BY vm.id`, app)
	if err != nil {
		return nil, fmt.Errorf("read VMs of app %d: %w", app, err)
	}
	return vms, nil
}

// Meta returns a fact, empty when it was never set.
func (s *Store) Meta(ctx context.Context, key Key) (string, error) {
	return meta(ctx, s.readers, key)
}

func meta(ctx context.Context, q querier, key Key) (string, error) {
	value, err := one(ctx, q, scanValue[string], `SELECT value FROM meta WHERE key = ?`, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return "", fmt.Errorf("read fact %q: %w", key, err)
	}
	return value, nil
}

func scanApp(scan scanFunc, app *model.App) error {
	var created int64
	spec := &app.Spec
	err := scan(&app.ID, &app.Name, &spec.Image, &spec.Scale, &spec.MemoryMiB, &spec.CPUs, &created)
	app.CreatedAt = fromNanos(created)
	return cmp.Or(err, check("app", int64(app.ID), app.Name, *spec, model.Pending))
}

// scanVM has pointers to plain types only, for row.scan.
func scanVM(scan scanFunc, vm *model.VM) error {
	var created int64
	spec, process := &vm.Spec, &vm.Process
	err := scan((*int64)(&vm.ID), (*uint32)(&vm.App), (*string)(&vm.AppName), (*string)(&vm.Name),
		(*uint32)(&vm.Slot), (*string)(&vm.State), &vm.Attachment,
		(*string)(&spec.Image), &spec.MemoryMiB, &spec.CPUs,
		&process.PID, &process.StartTime, &process.BootID, &vm.Reason, &created)
	vm.CreatedAt = fromNanos(created)
	return cmp.Or(err, check("VM", int64(vm.ID), vm.Name, *spec, vm.State))
}

// check refuses a row that zwrmd would not have written. Names go into rules and into
// guests' kernel command lines. SQLite checks the schema's constraints when rows are
// written; what another program did to the file it does not find in one that it may
// only read.
func check(what string, id int64, name model.Name, spec model.Spec, state model.State) error {
	_, err := model.ParseName(string(name))
	switch {
	case err != nil:
	case spec.Scale < 0 || spec.MemoryMiB < 0 || spec.CPUs < 0:
		err = fmt.Errorf("a size is below 0: %+v", spec)
	case !slices.Contains([]model.State{model.Pending, model.Starting, model.Running, model.Stopping, model.Failed}, state):
		err = fmt.Errorf("there is no state %q", state)
	default:
		return nil
	}
	return fmt.Errorf("the row of %s %d was altered: %w", what, id, err)
}

func scanRest(scan scanFunc, rest *ipam.Rest) error {
	var until int64
	err := scan(&rest.Slot, &until)
	rest.Until = fromNanos(until)
	return err
}

// nanos returns the time as the database keeps it. The zero time, which has no
// Unix time in an int64, is 0.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

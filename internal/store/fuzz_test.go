package store

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// template returns the file of a database with some of everything.
func template(f *testing.F) []byte {
	f.Helper()
	path := filepath.Join(f.TempDir(), "state.db")
	s, err := Open(f.Context(), path, nil)
	if err != nil {
		f.Fatal(err)
	}
	app, vms, err := s.Create(f.Context(), testApp("web"), []model.VM{testVM("web", 0, 0), testVM("web", 1, 1), testVM("web", 2, 2)})
	if err == nil {
		err = s.Remove(f.Context(), ids(vms[2:]), []ipam.Rest{{Slot: 2, Until: testTime()}}, app.ID)
	}
	if err == nil {
		err = s.SetMeta(f.Context(), Subnet, "172.16.0.0/16")
	}
	if err == nil {
		err = s.Close()
	}
	data, readErr := os.ReadFile(path)
	if err != nil || readErr != nil {
		f.Fatal(err, readErr)
	}
	return data
}

// use opens a database that was altered and does with it what zwrmd does. It returns
// what it holds, if it can be read.
func use(ctx context.Context, path string) (state State, err error) {
	s, err := Open(ctx, path, nil)
	if err != nil {
		return State{}, err
	}
	state, err = s.State(ctx)
	_, _ = s.Apps(ctx)
	_, _ = s.Counts(ctx)
	_, _ = s.App(ctx, "web")
	_, _ = s.VM(ctx, "web-0")
	_, _ = s.AppVMs(ctx, 1)
	_, _ = s.Meta(ctx, Subnet)
	_, _, _ = s.Create(ctx, testApp("db"), []model.VM{testVM("db", 0, 7)})
	_ = s.UpdateVM(ctx, state.VMs...)
	_ = s.Remove(ctx, ids(state.VMs), []ipam.Rest{{Slot: 1, Until: testTime()}}, 1)
	_ = s.PruneReleased(ctx, time.Now())
	_ = s.Close()
	return state, err
}

// FuzzFile: whatever was done to the file, it is opened and used, or refused with a
// reason. SQLite finds most of it, and zwrmd survives the rest.
func FuzzFile(f *testing.F) {
	data := template(f)
	for _, at := range []int{0, 16, 60, 100, 108, 4096, 4100, len(data) - 1} {
		f.Add(at, []byte{0xff})
		f.Add(at, []byte{0, 0, 0, 0, 0, 0, 0, 0})
	}
	f.Add(len(data)/2, []byte{}) // the second half is missing
	f.Fuzz(func(t *testing.T, at int, patch []byte) {
		if at < 0 || at >= len(data) {
			return
		}
		altered := slices.Clone(data)
		if copy(altered[at:], patch) == 0 {
			altered = altered[:at]
		}
		path := filepath.Join(t.TempDir(), "state.db")
		must(t, os.WriteFile(path, altered, 0o600))
		_, _ = use(t.Context(), path)
	})
}

// FuzzRow: a row that somebody altered is refused, or is one that zwrmd might have
// written.
func FuzzRow(f *testing.F) {
	data := template(f)
	columns := []string{
		"app.id", "app.name", "app.image", "app.scale", "app.memory_mib", "app.cpus", "app.created_at",
		"vm.id", "vm.app", "vm.name", "vm.slot", "vm.state", "vm.attachment", "vm.image", "vm.memory_mib", "vm.cpus",
		"vm.pid", "vm.start_time", "vm.boot_id", "vm.reason", "vm.created_at", "released.slot", "released.until", "meta.value",
	}
	for i := range columns {
		f.Add(i, int64(-1), "")
		f.Add(i, int64(1)<<40, "")
		f.Add(i, int64(0), "x\" -j ACCEPT\n../..")
		f.Add(i, int64(0), "web\x00")
	}
	f.Fuzz(func(t *testing.T, i int, number int64, text string) {
		if i < 0 || i >= len(columns) {
			return
		}
		path := filepath.Join(t.TempDir(), "state.db")
		must(t, os.WriteFile(path, data, 0o600))
		table, column, _ := strings.Cut(columns[i], ".")
		if !alter(t, path, table, column, number, text) {
			return
		}
		state, err := use(t.Context(), path)
		if err != nil {
			return
		}
		for _, app := range state.Apps {
			if _, err := model.ParseName(string(app.Name)); err != nil || app.ID < 1 || app.ID > model.MaxAppID || app.Spec.Scale < 0 {
				t.Errorf("%s.%s: an app is %+v", table, column, app)
			}
		}
		for _, vm := range state.VMs {
			if _, err := model.ParseName(string(vm.Name)); err != nil || !slices.Contains([]model.State{model.Pending, model.Starting, model.Running, model.Stopping, model.Failed}, vm.State) {
				t.Errorf("%s.%s: a VM is %+v", table, column, vm)
			}
		}
	})
}

// alter sets a column of a table's first row as somebody with a tool might. It reports
// whether SQLite let it be done.
func alter(t *testing.T, path, table, column string, number int64, text string) bool {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	_, err = db.Exec("PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF")
	must(t, err)
	var value any = number
	if text != "" {
		value = text
	}
	_, err = db.Exec(fmt.Sprintf("UPDATE %[1]s SET %[2]s = ? WHERE rowid = (SELECT min(rowid) FROM %[1]s)", table, column), value)
	return err == nil
}

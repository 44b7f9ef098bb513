package store

import (
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

func TestRoundTrip(t *testing.T) {
	path := testPath(t)
	s := mustOpen(t, path)
	running := testVM("web", 0, 5)
	running.State = model.Running
	running.Process = model.Process{PID: 4711, StartTime: 1<<63 - 1, BootID: "7e0c8a3e-0b1d-4f5a-9d38-1f1f7b0f5a11"}
	failed := testVM("web", 1, 16383)
	failed.State, failed.Reason = model.Failed, "guest said \"no\"\nand went"
	attached := model.VM{Name: "mine", Slot: 0, State: model.Running, Attachment: true}

	app, vms := mustCreate(t, s, testApp("web"), running, failed, attached)
	wantApp := testApp("web")
	wantApp.ID, wantApp.CreatedAt = 1, testTime().UTC()
	app.CreatedAt = app.CreatedAt.UTC()
	if app != wantApp {
		t.Errorf("created %+v, want %+v", app, wantApp)
	}
	want := []model.VM{running, failed, attached}
	for i := range want {
		want[i].ID, want[i].App, want[i].AppName = model.VMID(i+1), 1, "web"
		if !reflect.DeepEqual(vms[i], want[i]) {
			t.Errorf("created %+v, want %+v", vms[i], want[i])
		}
		if !want[i].CreatedAt.IsZero() {
			want[i].CreatedAt = want[i].CreatedAt.UTC()
		}
	}
	mustClose(t, s)

	s = mustOpen(t, path)
	state := mustState(t, s)
	if !reflect.DeepEqual(state, State{Apps: []model.App{wantApp}, VMs: want}) {
		t.Errorf("read back %+v", state)
	}
	if got, err := s.App(t.Context(), "web"); err != nil || got != wantApp {
		t.Errorf("App = %+v, %v", got, err)
	}
	if got, err := s.VM(t.Context(), "web-1"); err != nil || got != want[1] {
		t.Errorf("VM = %+v, %v", got, err)
	}
	if got, err := s.AppVMs(t.Context(), 1); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("AppVMs = %+v, %v", got, err)
	}
}

func TestNotFound(t *testing.T) {
	s := mustOpen(t, testPath(t))
	app, vms := mustCreate(t, s, testApp("web"), testVM("web", 0, 0))
	before := mustState(t, s)
	gone := app
	gone.ID, gone.Name = 99, "gone"
	tests := map[string]func() error{
		"App":      func() error { _, err := s.App(t.Context(), "gone"); return err },
		"VM":       func() error { _, err := s.VM(t.Context(), "gone"); return err },
		"UpdateVM": func() error { return s.UpdateVM(t.Context(), vms[0], model.VM{ID: 99, State: model.Failed}) },
		"Retire":   func() error { return s.Retire(t.Context(), app, []model.VMID{vms[0].ID, 99}) },
		"Retire, app": func() error {
			return s.Retire(t.Context(), gone, ids(vms))
		},
		"Create": func() error {
			_, _, err := s.Create(t.Context(), gone, []model.VM{testVM("gone", 0, 9)})
			return err
		},
	}
	for name, call := range tests {
		t.Run(name, func(t *testing.T) {
			if err := call(); !errors.Is(err, ErrNotFound) {
				t.Errorf("%v, not ErrNotFound", err)
			}
			if after := mustState(t, s); !reflect.DeepEqual(before, after) {
				t.Errorf("rows changed:\n%+v\n%+v", before, after)
			}
		})
	}
	if vms, err := s.AppVMs(t.Context(), 99); err != nil || len(vms) != 0 {
		t.Errorf("AppVMs of no app = %v, %v", vms, err)
	}
}

func TestTaken(t *testing.T) {
	s := mustOpen(t, testPath(t))
	app, _ := mustCreate(t, s, testApp("web"), testVM("web", 0, 5))
	before := mustState(t, s)
	tests := []struct {
		name string
		app  model.App
		vms  []model.VM
		want ExistsError
		text string
	}{
		{"app name", testApp("web"), nil,
			ExistsError{What: AppName, Name: "web"}, `app "web" exists already`},
		{"VM name", testApp("other"), []model.VM{testVM("web", 0, 6)},
			ExistsError{What: VMName, Name: "web-0", Slot: 5}, `VM "web-0" exists already`},
		{"slot", testApp("other"), []model.VM{testVM("other", 0, 6), testVM("other", 1, 5)},
			ExistsError{What: VMSlot, Name: "web-0", Slot: 5}, `slot 5 belongs to VM "web-0" already`},
		{"slot, app is there", app, []model.VM{testVM("web", 1, 5)},
			ExistsError{What: VMSlot, Name: "web-0", Slot: 5}, `slot 5 belongs to VM "web-0" already`},
		{"name and slot", testApp("other"), []model.VM{testVM("web", 0, 5)},
			ExistsError{What: VMName, Name: "web-0", Slot: 5}, `VM "web-0" exists already`},
		{"slot twice in one call", testApp("other"), []model.VM{testVM("other", 0, 6), testVM("other", 1, 6)},
			ExistsError{What: VMSlot, Name: "other-0", Slot: 6}, `slot 6 belongs to VM "other-0" already`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.app.Spec.Scale = 17 // must not be kept either
			_, _, err := s.Create(t.Context(), test.app, test.vms)
			var exists *ExistsError
			if !errors.As(err, &exists) || *exists != test.want || err.Error() != test.text {
				t.Errorf("Create = %v, want %v", err, test.text)
			}
			if after := mustState(t, s); !reflect.DeepEqual(before, after) {
				t.Errorf("rows changed:\n%+v\n%+v", before, after)
			}
		})
	}
}

func TestImpossibleRows(t *testing.T) {
	s := mustOpen(t, testPath(t))
	scale := testApp("web")
	scale.Spec.Scale = -1
	state := testVM("web", 0, 0)
	state.State = "dreaming"
	for name, err := range map[string]error{
		"scale": func() error { _, _, err := s.Create(t.Context(), scale, nil); return err }(),
		"state": func() error { _, _, err := s.Create(t.Context(), testApp("web"), []model.VM{state}); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), "CHECK") || !strings.Contains(err.Error(), "web") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if state := mustState(t, s); len(state.Apps) != 0 {
		t.Errorf("refused rows left %+v", state)
	}
}

func TestUpdate(t *testing.T) {
	s := mustOpen(t, testPath(t))
	app, vms := mustCreate(t, s, testApp("web"), testVM("web", 0, 0), testVM("web", 1, 1), testVM("web", 2, 2))
	app.Spec = model.Spec{Image: "alpine", Scale: 1, MemoryMiB: 64, CPUs: 1}
	must(t, s.Retire(t.Context(), app, nil))

	vms[0].State = model.Running
	vms[0].Process = model.Process{PID: 12, StartTime: 34, BootID: "boot"}
	vms[1].State, vms[1].Reason = model.Failed, "died"
	vms[1].Spec = model.Spec{Image: "alpine", MemoryMiB: 64, CPUs: 1}
	must(t, s.UpdateVM(t.Context(), vms[0], vms[1]))
	expect(t, s, app, vms)

	app.Spec.Scale = 0
	must(t, s.Retire(t.Context(), app, ids(vms[1:])))
	vms[1].State, vms[2].State = model.Stopping, model.Stopping
	expect(t, s, app, vms)

	app.Spec.Scale = 4
	app, more := mustCreate(t, s, app, testVM("web", 3, 3))
	expect(t, s, app, append(vms, more...))
	must(t, s.UpdateVM(t.Context()))
}

func expect(t *testing.T, s *Store, app model.App, vms []model.VM) {
	t.Helper()
	want := State{Apps: []model.App{app}}
	want.Apps[0].CreatedAt = app.CreatedAt.UTC()
	for _, vm := range vms {
		vm.CreatedAt = vm.CreatedAt.UTC()
		want.VMs = append(want.VMs, vm)
	}
	if state := mustState(t, s); !reflect.DeepEqual(state, want) {
		t.Errorf("rows are\n%+v, want\n%+v", state, want)
	}
}

// TestCounts counts each app's VMs by state.
func TestCounts(t *testing.T) {
	s := mustOpen(t, testPath(t))
	web, _ := mustCreate(t, s, testApp("web"), testVM("web", 0, 0), testVM("web", 1, 1))
	failed := testVM("db", 0, 2)
	failed.State = model.Failed
	db, _ := mustCreate(t, s, testApp("db"), failed)
	mustCreate(t, s, testApp("empty"))
	counts, err := s.Counts(t.Context())
	must(t, err)
	want := map[Count]int{{web.ID, testVM("web", 0, 0).State}: 2, {db.ID, model.Failed}: 1}
	if !maps.Equal(counts, want) {
		t.Errorf("counts are %v, want %v", counts, want)
	}
	apps, err := s.Apps(t.Context())
	must(t, err)
	if len(apps) != 3 || apps[0].ID != db.ID || apps[1].Name != "empty" || apps[2].ID != web.ID {
		t.Errorf("apps are %v", apps)
	}
}

func TestRemove(t *testing.T) {
	s := mustOpen(t, testPath(t))
	ctx := t.Context()
	app, vms := mustCreate(t, s, testApp("web"), testVM("web", 0, 0), testVM("web", 1, 1))
	soon, late := testTime().UTC(), testTime().Add(time.Hour).UTC()

	third, more := mustCreate(t, s, testApp("third"), testVM("third", 0, 2), testVM("third", 1, 3))
	for i, left := range []int{2, 1} { // the app goes with its last VM
		must(t, s.Remove(ctx, ids(more[i:i+1]), nil, third.ID))
		if apps, err := s.Apps(ctx); err != nil || len(apps) != left {
			t.Errorf("apps are %v (%v), want %d", apps, err, left)
		}
	}
	err := s.Remove(ctx, ids(vms[:1]), []ipam.Rest{{Slot: 1, Until: soon}}, 0)
	if err == nil || !strings.Contains(err.Error(), `rest slot 1: VM "web-1" has it`) {
		t.Errorf("rest of a slot in use: %v", err)
	}
	if state := mustState(t, s); len(state.VMs) != 2 || len(state.Released) != 0 {
		t.Errorf("refused removals left %+v", state)
	}

	rests := []ipam.Rest{{Slot: 0, Until: late}, {Slot: 1, Until: soon}}
	for range 2 { // the second finds everything gone
		must(t, s.Remove(ctx, ids(vms), rests, app.ID))
		want := State{Released: []ipam.Rest{rests[1], rests[0]}}
		if state := mustState(t, s); !reflect.DeepEqual(state, want) {
			t.Errorf("removal left %+v, want %+v", state, want)
		}
	}
	must(t, s.Remove(ctx, nil, []ipam.Rest{{Slot: 0, Until: soon}}, 0))
	if state := mustState(t, s); !state.Released[1].Until.Equal(late) {
		t.Errorf("rest was cut short: %+v", state.Released)
	}

	must(t, s.PruneReleased(ctx, soon.Add(-1)))
	if n := len(mustState(t, s).Released); n != 2 {
		t.Errorf("%d slots rest before the first wakes, want 2", n)
	}
	must(t, s.PruneReleased(ctx, soon))
	if n := len(mustState(t, s).Released); n != 1 {
		t.Errorf("%d slots rest after the first woke, want 1", n)
	}
	mustCreate(t, s, testApp("web"), testVM("web", 0, 0))
	if state := mustState(t, s); len(state.Released) != 0 {
		t.Errorf("slot in use rests: %+v", state.Released)
	}
}

func TestVMIDsAreNeverReused(t *testing.T) {
	path := testPath(t)
	s := mustOpen(t, path)
	app, vms := mustCreate(t, s, testApp("web"), testVM("web", 0, 0), testVM("web", 1, 1))
	must(t, s.Remove(t.Context(), ids(vms), nil, 0))
	mustClose(t, s)
	s = mustOpen(t, path)
	_, vms = mustCreate(t, s, app, testVM("web", 0, 0))
	if vms[0].ID != 3 {
		t.Errorf("id %d after 1 and 2", vms[0].ID)
	}
}

func TestAppIDsAreReusedLate(t *testing.T) {
	s := mustOpen(t, testPath(t))
	first, _ := mustCreate(t, s, testApp("first"))
	second, _ := mustCreate(t, s, testApp("second"))
	must(t, s.Remove(t.Context(), nil, nil, second.ID))
	third, _ := mustCreate(t, s, testApp("third"))
	if first.ID != 1 || second.ID != 2 || third.ID != 3 {
		t.Errorf("ids %d, %d, %d; want 1, 2, 3", first.ID, second.ID, third.ID)
	}
	if _, _, err := s.Create(t.Context(), testApp("first"), nil); err == nil {
		t.Fatal("name was given twice")
	}
	must(t, s.SetMeta(t.Context(), lastAppID, "16777214"))
	last, _ := mustCreate(t, s, testApp("last"))
	wrapped, _ := mustCreate(t, s, testApp("wrapped"))
	skipped, _ := mustCreate(t, s, testApp("skipped"))
	if last.ID != model.MaxAppID || wrapped.ID != 2 || skipped.ID != 4 {
		t.Errorf("ids %d, %d, %d; want %d, 2, 4", last.ID, wrapped.ID, skipped.ID, model.MaxAppID)
	}
}

func TestMeta(t *testing.T) {
	s := mustOpen(t, testPath(t))
	for _, want := range []string{"", "172.16.0.0/16", "10.0.0.0/8"} {
		if want != "" {
			must(t, s.SetMeta(t.Context(), Subnet, want))
		}
		if got, err := s.Meta(t.Context(), Subnet); err != nil || got != want {
			t.Errorf("Meta = %q, %v; want %q", got, err, want)
		}
	}
	if got, err := s.Meta(t.Context(), "other"); err != nil || got != "" {
		t.Errorf("Meta of another key = %q, %v", got, err)
	}
}

package store

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// TestFirstVersion: a database of the first version is read as it was meant, whatever
// has become of the schema since.
func TestFirstVersion(t *testing.T) {
	path, err := locate(testPath(t), nil)
	must(t, err)
	text, err := os.ReadFile(filepath.Join("testdata", "v1.sql"))
	must(t, err)
	must(t, ensureFile(path, nil))
	db, err := connect(path, "rw", 1)
	must(t, err)
	_, err = db.Exec(string(text))
	must(t, err)
	must(t, db.Close())

	s := mustOpen(t, path)
	early, later := time.Unix(1760000000, 0).UTC(), time.Unix(1760000001, 0).UTC()
	want := State{
		Apps: []model.App{
			{ID: 1, Name: "web", Spec: model.Spec{Image: "small", Scale: 2, MemoryMiB: 256, CPUs: 2}, CreatedAt: early},
			{ID: 2, Name: "mine", CreatedAt: later},
		},
		VMs: []model.VM{
			{ID: 1, App: 1, AppName: "web", Name: "web-0", Slot: 0, State: model.Running, Spec: model.Spec{Image: "small", MemoryMiB: 256, CPUs: 2},
				Process: model.Process{PID: 4711, StartTime: 123456, BootID: "5f0c8a3e-6f8e-4c3e-9a57-2d3f6b1c0e11"}, CreatedAt: early},
			{ID: 2, App: 1, AppName: "web", Name: "web-1", Slot: 1, State: model.Failed, Spec: model.Spec{Image: "small", MemoryMiB: 128, CPUs: 1},
				Reason: "VMM ended by itself", CreatedAt: early},
			{ID: 4, App: 2, AppName: "mine", Name: "lab", Slot: 3, State: model.Running, Attachment: true, CreatedAt: later},
		},
		Released: []ipam.Rest{{Slot: 2, Until: time.Unix(4102444800, 0).UTC()}},
	}
	if got := mustState(t, s); !reflect.DeepEqual(got, want) {
		t.Errorf("it is read as\n%+v\nand means\n%+v", got, want)
	}
	subnet, err := s.Meta(t.Context(), Subnet)
	must(t, err)
	if subnet != "172.16.0.0/16" {
		t.Errorf("its subnet is read as %q", subnet)
	}
	// Numbers go on where they were.
	_, vms := mustCreate(t, s, testApp("next"), testVM("next", 0, 9))
	if app := vms[0].App; app != 3 || vms[0].ID != 5 {
		t.Errorf("the next app is %d and the next VM %d, want 3 and 5", app, vms[0].ID)
	}
}

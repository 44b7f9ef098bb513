package fleet_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"zwrm/internal/event"
	"zwrm/internal/host"
	"zwrm/internal/model"
	"zwrm/internal/vmm"
)

// TestStrayVMM: a VMM that no row knows is not ended on a guess, but if long after that
// is still so. Until then no VM can have its folder, whose row would be of another.
func TestStrayVMM(t *testing.T) {
	w := newWorld(t, "")
	w.stop()
	var strays []*vmm.Process
	for _, folder := range []string{"1", "2"} { // the first of an empty database
		dir := filepath.Join(w.dir, "vms", folder)
		w.must(os.MkdirAll(dir, 0o700))
		tap := "zvm7" + folder
		w.must(w.kernel.AddLink(host.Link{Name: tap, Kind: host.KindTAP, Group: model.GroupUnassigned}))
		stray, err := w.driver.Start(t.Context(), vmm.Spec{Dir: dir, TAP: tap, UID: w.cfg.VMM.UIDBase})
		w.must(err)
		strays = append(strays, stray)
	}
	time.Sleep(2100 * time.Millisecond) // its VM's row is older than it by less than this
	w.start()
	for _, object := range []string{"VMM 1", "VMM 2"} {
		if !slices.ContainsFunc(w.events.Recent(), func(e event.Event) bool { return e.Kind == event.Stray && e.Object == object }) {
			t.Errorf("%s is not told of: %+v", object, w.events.Recent())
		}
	}
	var problem *model.Problem
	if err := w.deploy("web", 1); !errors.As(err, &problem) || problem.Code != model.Conflict || !strings.Contains(problem.Error(), "a VMM that no VM owns") {
		t.Errorf("a VM in the same folder: %v", err)
	}
	if w.driver.alive() != 2 {
		t.Error("it is ended at once")
	}
	// zwrmd died when it was about to deploy: there is a row now, of another VM.
	spec := model.Spec{Image: "small", Scale: 1}
	_, rows, err := w.store.Create(t.Context(), model.App{Name: "web", CreatedAt: time.Now(), Spec: spec},
		[]model.VM{{AppName: "web", Name: "web-0", Slot: 5, State: model.Pending, Spec: spec, CreatedAt: time.Now()}})
	w.must(err)
	if rows[0].ID != 2 {
		t.Fatalf("the VM is %d", rows[0].ID)
	}
	w.restart()
	if vm := w.vm("web-0"); vm.Process.PID != 0 {
		t.Errorf("a VMM that is older than the row was taken for the VM's: %+v", vm)
	}
	w.stray = 50 * time.Millisecond
	w.restart()
	for _, stray := range strays {
		w.eventually("it is ended", func() bool {
			_, err := vmm.Adopt(stray.Identity(), nil)
			return errors.Is(err, vmm.ErrGone)
		})
	}
	w.eventually("the VM runs", func() bool { return w.vm("web-0").State == model.Running })
}

// TestAvoid: slots that are to be avoided are not handed out until they need not be any
// more, and those of VMs are no matter.
func TestAvoid(t *testing.T) {
	w := newWorld(t, "subnet = \"172.16.0.0/29\"\n")
	w.must(attach(t, w, "one"))
	taken := w.vm("one").Slot
	w.Avoid(0, 1)
	var problem *model.Problem
	if err := attach(t, w, "two"); !errors.As(err, &problem) || problem.Code != model.Exhausted {
		t.Errorf("error %v", err)
	}
	w.must(w.Detach(t.Context(), "one"))
	w.Avoid()
	if used, free, resting := w.Slots(); used != 0 || free != 0 || resting != 2 {
		t.Errorf("%d slots are used, %d free, %d rest; slot %d was the VM's", used, free, resting, taken)
	}
}

func attach(t *testing.T, w *world, name model.Name) error {
	t.Helper()
	_, err := w.Attach(t.Context(), name, "app")
	return err
}

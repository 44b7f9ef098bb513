package fleet_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"zwrm/internal/firewall"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/store"
	"zwrm/internal/vmm"
)

// bystander starts a process that is none of ours and returns what it is known by.
func bystander(t *testing.T) (id model.Process, alive func() bool) {
	t.Helper()
	cmd := exec.Command("/bin/sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // it is killed
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	id, err := vmm.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return id, func() bool {
		select {
		case <-ended:
			return false
		default:
			return true
		}
	}
}

// reboot takes away what a reboot does, VMMs, links and rules, and has the rows tell of
// another boot. It returns how those who have the VMMs' pids since then are.
func (w *world) reboot() (bystanders []func() bool) {
	w.t.Helper()
	w.stop()
	w.driver.killAll()
	for slot := range ipam.Slot(w.cfg.Network.Layout.Capacity()) {
		w.kernel.RemoveLink(slot.TAP())
	}
	w.kernel.RemoveLink("zwrmd0")
	w.rules.Change(func([]firewall.Rule) []firewall.Rule { return nil })
	w.must(w.kernel.SetSysctl("net/ipv4/ip_forward", "0"))
	rows, err := store.Open(w.t.Context(), filepath.Join(w.dir, "state.db"), nil)
	w.must(err)
	state, err := rows.State(w.t.Context())
	w.must(err)
	var vms []model.VM
	for i, vm := range state.VMs {
		if vm.Attachment {
			continue
		}
		id, alive := bystander(w.t)
		bystanders = append(bystanders, alive)
		if vm.Process = id; i%2 == 0 { // another boot, or another process of this one
			vm.Process.BootID = "00000000-0000-0000-0000-000000000000"
		} else {
			vm.Process.StartTime--
		}
		vms = append(vms, vm)
	}
	w.must(rows.UpdateVM(w.t.Context(), vms...))
	w.must(rows.Close())
	return bystanders
}

// TestReboot: every VM is started again on its slot, and none is taken for the process
// that has its VMM's pid now. Attachments have their networks again. What rested goes on
// resting, and no slot is lost.
func TestReboot(t *testing.T) {
	w := newWorld(t, "subnet = \"172.16.0.0/27\"\n")
	w.must(w.deploy("old", 1))
	w.must(w.deploy("web", 5))
	_, err := w.Attach(t.Context(), "mine", "web")
	w.must(err)
	w.must(w.Destroy(t.Context(), "old"))
	before := w.text()
	used, free, resting := w.Slots()

	bystanders := w.reboot()
	w.start()
	w.eventually("all VMs run again", func() bool { return w.text() == before })
	if got := w.driver.alive(); got != 5 {
		t.Errorf("%d VMMs run, want 5", got)
	}
	if u, f, r := w.Slots(); u != used || f != free || r != resting {
		t.Errorf("%d slots are used, %d free, %d rest; before the reboot it was %d, %d, %d", u, f, r, used, free, resting)
	}
	w.insync()
	if slots := w.net.Rebuilt(); !slices.Equal(slots, []ipam.Slot{w.vm("mine").Slot}) {
		t.Errorf("the VMMs of slots %v are to open their TAPs again, want the attachment's", slots)
	}
	var problem *model.Problem
	if err := w.deploy("next", 2); !errors.As(err, &problem) || problem.Code != model.Exhausted {
		t.Errorf("error %v: of 8 slots 6 are used and 1 rests", err)
	}
	w.must(w.Destroy(t.Context(), "web"))
	for i, alive := range bystanders {
		if !alive() {
			t.Errorf("process %d was ended, which only has the pid of a VMM", i)
		}
	}
}

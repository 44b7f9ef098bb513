package fleet_test

import (
	"errors"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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

func TestRestartOfTheDaemonAdopts(t *testing.T) {
	w := newWorld(t, "")
	w.must(w.deploy("web", 3))
	before := w.text()
	dead := w.vm("web-2")
	w.stop()
	process, err := vmm.Adopt(dead.Process, nil)
	w.must(err)
	w.must(process.Kill(t.Context()))
	w.start()
	w.eventually("web-2 runs again", func() bool { return w.vm("web-2").State == model.Running })
	if got := w.text(); got != before {
		t.Errorf("after the restart:\n%s\nbefore:\n%s", got, before)
	}
	if got := w.driver.alive(); got != 3 {
		t.Errorf("%d VMMs run, want 3: none doubled", got)
	}
	w.must(w.Destroy(t.Context(), "web"))
	if got := w.driver.alive(); got != 0 {
		t.Errorf("%d adopted VMMs live on", got)
	}
}

// TestVMMThatNoRowNames stands for a crash between the start of a VMM and the
// note of it: the process is found by its folder, and not started twice.
func TestVMMThatNoRowNames(t *testing.T) {
	w := newWorld(t, "")
	w.must(w.deploy("web", 1))
	vm := w.vm("web-0")
	pid := vm.Process.PID
	vm.State, vm.Process = model.Starting, model.Process{}
	w.must(w.store.UpdateVM(t.Context(), vm))
	w.restart()
	if now := w.vm("web-0"); now.State != model.Running || now.Process.PID != pid {
		t.Errorf("VM %+v, want pid %d", now, pid)
	}
	if got := w.driver.alive(); got != 1 {
		t.Errorf("%d VMMs run", got)
	}
}

// TestBrokenOffRemoval stands for a crash in the middle of destroy.
func TestBrokenOffRemoval(t *testing.T) {
	w := newWorld(t, "")
	empty := w.text()
	w.must(w.deploy("web", 2))
	w.must(w.deploy("none", 0))
	for name, vms := range map[model.Name][]model.VMID{"web": {w.vm("web-0").ID, w.vm("web-1").ID}, "none": nil} {
		app, err := w.store.App(t.Context(), name)
		w.must(err)
		app.Spec = model.Spec{}
		w.must(w.store.Retire(t.Context(), app, vms))
	}
	w.restart()
	w.eventually("nothing is left", func() bool { return w.text() == empty && w.driver.alive() == 0 })
}

func TestQuarantineSurvivesRestart(t *testing.T) {
	w := newWorld(t, "subnet = \"172.16.0.0/29\"\n")
	w.must(w.deploy("web", 2))
	w.must(w.Destroy(t.Context(), "web"))
	w.restart()
	var problem *model.Problem
	if err := w.deploy("next", 1); !errors.As(err, &problem) || !strings.Contains(err.Error(), "2 more in quarantine") {
		t.Errorf("error %v, want one about quarantine", err)
	}
}

// TestSmallerSubnet: slots that rest and that a smaller subnet has not are no hindrance.
func TestSmallerSubnet(t *testing.T) {
	w := newWorld(t, "subnet = \"172.16.0.0/28\"\n")
	w.must(w.deploy("web", 4))
	w.must(w.Destroy(t.Context(), "web"))
	w.stop()
	var err error
	w.cfg.Network.Layout, err = ipam.NewLayout(netip.MustParsePrefix("172.16.0.0/29"))
	w.must(err)
	w.start()
	if used, free, resting := w.Slots(); used != 0 || free != 0 || resting != 2 {
		t.Errorf("%d slots used, %d free, %d rest; want the two of the subnet to rest", used, free, resting)
	}
}

package e2e_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"zwrm/internal/store"
	"zwrm/internal/vmm"
	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// packets is how many must pass for a stream to flow.
const packets = 100

// TestDaemonRestartKeepsVMs: VMs outlive a stop of zwrmd and are taken up again at
// the next start. Meanwhile they are cut off, or not, as on_shutdown says; with "keep"
// they lose no packet.
func TestDaemonRestartKeepsVMs(t *testing.T) {
	w := newWorld(t, private(), nil)
	defer w.end(t)
	vms := w.deploy(t, "web", 2)
	w.matrix(t, vms, func(_, _ wire.VM) bool { return true })

	w.daemon.Stop(t)
	for _, vm := range vms {
		w.silent(t, vm)
	}
	w.processesAre(t, vms)
	w.daemon.Start(t)
	w.rowsAre(t, vms)
	w.matrix(t, vms, func(_, _ wire.VM) bool { return true })
	w.online(t, vms[0])

	w.daemon.Configure(t, zwrmtest.Settings{"network.bridge.enabled": "true", "network.on_shutdown": `"keep"`})
	w.daemon.Restart(t)
	running := w.Dump(t)
	line := w.hold(t, vms[0])
	line.carries(t, "before the stop")
	stream := w.stream(t, vms[1])
	stream.Flows(t, "before the stop", packets)
	w.daemon.Stop(t)
	w.Same(t, running)
	line.carries(t, "while zwrmd is stopped")
	w.matrix(t, vms, func(_, _ wire.VM) bool { return true })
	stream.Flows(t, "while zwrmd is stopped", packets)
	w.daemon.Start(t)
	line.carries(t, "after the next start")
	stream.Flows(t, "after the next start", packets)
	stream.Lost(t)
	w.Same(t, running)
	w.rowsAre(t, vms)

	w.daemon.Configure(t, private()) // for the stop at the end
	w.daemon.Restart(t)
}

// rowsAre reports an error unless the VMs are exactly these, processes included.
func (w *world) rowsAre(t *testing.T, want []wire.VM) {
	t.Helper()
	if got := w.vms(t, want[0].App); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the VMs are\n%v\nand were\n%v", got, want)
	}
	w.processesAre(t, want)
}

// processesAre reports an error unless the VMMs that run are exactly those of the VMs.
func (w *world) processesAre(t *testing.T, vms []wire.VM) {
	t.Helper()
	got := w.processes(t)
	for _, vm := range vms {
		contains(t, "the list of processes", got, fmt.Sprintf("process %d in ", vm.PID))
	}
	if n := strings.Count(got, "\n"); n != len(vms) {
		t.Errorf("%d processes run, want %d:\n%s", n, len(vms), got)
	}
}

// TestKilledDaemon: while zwrmd is dead, guests keep their network and nothing more,
// and lose no packet.
// The next start takes up the same processes, and starts the VM anew whose VMM died
// meanwhile.
func TestKilledDaemon(t *testing.T) {
	w := newWorld(t, private(), nil)
	defer w.end(t)
	other := w.daemon.Guest(t, "db-0", "db")
	vms := w.deploy(t, "web", 2)
	w.online(t, vms[0])
	running := w.Dump(t)
	line := w.hold(t, vms[0])
	line.carries(t, "before the kill")
	stream := w.stream(t, vms[0])
	stream.Flows(t, "before the kill", packets)

	w.daemon.Kill()
	line.carries(t, "while no zwrmd runs")
	stream.Flows(t, "while no zwrmd runs", packets)
	w.matrix(t, vms, func(_, _ wire.VM) bool { return true })
	w.online(t, vms[1])
	w.cutOff(t, vms[0], "ping?"+other.VM.GuestIP)
	if err := other.Ping(netip.MustParseAddr(vms[0].GuestIP)); err == nil {
		t.Error("another app's VM reaches web-0 while no zwrmd runs")
	}
	w.processesAre(t, vms)

	w.daemon.Start(t)
	w.Same(t, running)
	w.rowsAre(t, vms)
	line.carries(t, "after the next start")
	w.matrix(t, vms, func(_, _ wire.VM) bool { return true })

	w.daemon.Kill()
	must(t, syscall.Kill(vms[1].PID, syscall.SIGKILL))
	eventually(t, "the end of the VMM", func() error { return gone(vms[1].PID) })
	w.daemon.Start(t)
	w.againAs(t, vms[1])
	w.matrix(t, vms, func(_, _ wire.VM) bool { return true })
	line.carries(t, "after all that")
	stream.Flows(t, "after all that", packets)
	stream.Lost(t)
	if got := w.vm(t, "web-0"); got != vms[0] {
		t.Errorf("web-0 is %v and was %v", got, vms[0])
	}

	// A start that finds all as it should be can change it as any other can.
	w.daemon.Kill()
	w.daemon.Start(t)
	contains(t, "the log of zwrmd", w.daemon.Log(), "changes=0")
	adopted := w.vm(t, "web-1")
	w.zwrm(t, "scale", "web", "1")
	must(t, gone(adopted.PID))
	if rules := w.Rules(t); strings.Contains(rules, "zwrm: app web") {
		t.Errorf("the app has one VM left, and a rule:\n%s", rules)
	}
	peer := w.daemon.Guest(t, "web-peer", "web")
	w.reaches(t, vms[0], "ping?"+peer.VM.GuestIP)
}

// TestKilledWhileStarting: a VMM is not lost, nor started twice, when zwrmd is killed
// before it has noted which process it is.
func TestKilledWhileStarting(t *testing.T) {
	bin := zwrmtest.TempDir(t)
	gate := filepath.Join(bin, "gate")
	wrapQEMU(t, bin, "web-0", fmt.Sprintf("until [ -e %s ]; do sleep 0.1; done", gate))
	w := newWorld(t, private(), pathTo(bin))
	defer w.end(t)
	w.daemon.Begin(t, "deploy", "web", "--image", "small")
	var process int
	eventually(t, "the start of the VMM", func() error {
		for line := range strings.Lines(w.processes(t)) {
			if strings.Contains(line, "-name web-0") { // the other is what it waits with
				_, err := fmt.Sscanf(line, "process %d in", &process)
				return err
			}
		}
		return errors.New("there is none")
	})
	w.daemon.Kill()
	must(t, os.WriteFile(gate, nil, 0o644))
	w.daemon.Start(t)
	web := w.vm(t, "web-0")
	if web.State != "running" || web.PID != process {
		t.Errorf("the VM is %s in process %d, want running in process %d", web.State, web.PID, process)
	}
	w.processesAre(t, []wire.VM{web})
	w.online(t, web)
}

// TestReboot: after a reboot VMs are started again on their slots, and attachments have
// their networks again. The process that has the pid of a VMM since then is let be.
func TestReboot(t *testing.T) {
	w := newWorld(t, private(), nil)
	defer w.end(t)
	peer := w.daemon.Guest(t, "web-peer", "web").VM
	web := w.deploy(t, "web", 1)[0]
	w.reaches(t, web, "ping?"+peer.GuestIP)
	before := w.Dump(t)

	w.daemon.Kill()
	must(t, syscall.Kill(web.PID, syscall.SIGKILL))
	eventually(t, "the end of the VMM", func() error { return gone(web.PID) })
	w.Reboot(t)
	w.Foreign(t) // its owner makes it again
	bystander := zwrmtest.Begin(t, w.Namespace, "sleep", "600")
	w.ofAnotherBoot(t, bystander.PID())
	w.daemon.Start(t)

	guest := w.Guest(t, peer)
	w.againAs(t, web)
	w.reaches(t, web, "ping?"+peer.GuestIP)
	if err := guest.Ping(netip.MustParseAddr(web.GuestIP)); err != nil {
		t.Errorf("an attachment does not reach a VM of its app: %v", err)
	}
	w.Same(t, before)
	if err := gone(bystander.PID()); err == nil {
		t.Error("a process was ended that has the pid of a VMM from before the reboot")
	}
}

// ofAnotherBoot has the rows of VMs say that their VMMs had a pid in another boot.
func (w *world) ofAnotherBoot(t *testing.T, pid int) {
	t.Helper()
	rows, err := store.Open(t.Context(), w.daemon.Database, nil)
	must(t, err)
	state, err := rows.State(t.Context())
	must(t, err)
	for i := range state.VMs {
		id, err := vmm.Identify(pid) // all the rest fits
		must(t, err)
		id.BootID = "00000000-0000-0000-0000-000000000000"
		state.VMs[i].Process = id
	}
	must(t, rows.UpdateVM(t.Context(), state.VMs...))
	must(t, rows.Close())
}

// TestStopCleansUp: a stop leaves no rule, no chain and no bridge. VMMs run on, on
// TAPs that are down; once their apps are destroyed nothing at all is left.
func TestStopCleansUp(t *testing.T) {
	w := newWorld(t, private(), nil)
	defer w.end(t)
	vms := w.deploy(t, "web", 1)
	w.daemon.Attach(t, "web-peer", "web") // so that the app has a rule
	w.online(t, vms[0])
	contains(t, "rules", w.Rules(t), "ZWRM-NAT", "MASQUERADE", "ZWRM-PRIVATE", `--comment "zwrm: app web"`)
	running := w.Dump(t)

	w.daemon.Stop(t)
	if got := w.Rules(t); got != w.rules {
		t.Errorf("after the stop the rules are\n%sand were before the first start\n%s", got, w.rules)
	}
	links := w.Run(t, "ip", "-o", "link")
	if strings.Contains(links, "zwrmd0") {
		t.Errorf("after the stop zwrmd0 is left:\n%s", links)
	}
	for line := range strings.Lines(links) {
		if strings.Contains(line, ": zvm") && strings.Contains(line, ",UP") {
			t.Errorf("after the stop a TAP is up: %s", line)
		}
	}
	w.silent(t, vms[0])
	w.processesAre(t, vms)

	w.daemon.Start(t)
	w.Same(t, running)
	w.online(t, vms[0])
}

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"zwrm/internal/wire"
)

// gone returns an error unless the process has ended. One that nobody has waited
// for yet has: its parent may be any process of the machine.
func gone(pid int) error {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // none of a process that is not there
	if len(stat) > 0 && !strings.Contains(string(stat), ") Z ") {
		return fmt.Errorf("process %d is there: %s", pid, stat)
	}
	return nil
}

// restarted waits until a VM runs in another process.
func (w *world) restarted(t *testing.T, was wire.VM) (now wire.VM) {
	t.Helper()
	eventually(t, was.Name+" runs again", func() error {
		if now = w.vm(t, was.Name); now.State != "running" || now.PID == was.PID {
			return fmt.Errorf("it is %s in process %d: %s", now.State, now.PID, now.Reason)
		}
		return nil
	})
	return now
}

// againAs waits until a VM runs in another process, on the same slot and with all
// else as it was, and reaches the internet.
func (w *world) againAs(t *testing.T, was wire.VM) {
	t.Helper()
	now := w.restarted(t, was)
	process := now.PID
	if now.PID = was.PID; now != was {
		t.Errorf("the VM is %v and was %v", now, was)
	}
	w.online(t, was)
	if err := gone(was.PID); err != nil {
		t.Errorf("it runs in process %d, but %v", process, err)
	}
}

// TestDeadVMMStartsAgain: a VM whose VMM died is started again on its slot, after a
// pause in which ps says why it does not run. The other VM of the app sees nothing
// of it.
func TestDeadVMMStartsAgain(t *testing.T) {
	w := newWorld(t, private(), nil)
	defer w.end(t)
	peer := w.daemon.Guest(t, "web-peer", "web")
	was := w.deploy(t, "web", 1)[0]
	w.reaches(t, was, "ping?"+peer.VM.GuestIP)
	running := w.Dump(t)

	// The pause doubles with each death, so at some time even a busy machine sees it.
	row := ""
	for try := 0; try < 5 && !strings.Contains(row, " failed ") && !strings.Contains(row, " starting "); try++ {
		before := w.vm(t, "web-0")
		killed := time.Now()
		must(t, syscall.Kill(before.PID, syscall.SIGKILL))
		eventually(t, "zwrm ps tells of the death", func() error {
			if row = w.row(t, "web-0"); strings.Contains(row, fmt.Sprintf(" %d ", before.PID)) {
				return fmt.Errorf("it says %s", row)
			}
			return nil
		})
		w.restarted(t, before)
		if pause := time.Since(killed); pause < time.Second {
			t.Errorf("the VMM was started again after %s, without a pause", pause)
		}
		w.againAs(t, before)
	}
	contains(t, "the row of zwrm ps between death and start", row, "VMM ended by itself: signal: killed")
	w.reaches(t, was, "ping?"+peer.VM.GuestIP)
	w.Same(t, running)
}

// row returns the line of zwrm ps that tells of a VM.
func (w *world) row(t *testing.T, name string) string {
	t.Helper()
	table := w.zwrm(t, "ps")
	for line := range strings.Lines(table) {
		if strings.HasPrefix(line, name+" ") {
			return line
		}
	}
	t.Fatalf("zwrm ps does not list %s:\n%s", name, table)
	return ""
}

// TestRestartAndLogs: restart gives a VM a new VMM on the same slot. logs shows what
// the guest wrote, and with -f what it writes from then on, through the restart. A
// repair that makes a VM's TAP anew restarts the VM, whose VMM has the lost one open.
func TestRestartAndLogs(t *testing.T) {
	w := newWorld(t, nil, nil)
	defer w.end(t)
	was := w.deploy(t, "web", 1)[0]
	w.online(t, was)
	const boot = "Linux version"
	booted := fmt.Sprintf("eth0 %s/30 via %s, host name web-0", was.GuestIP, was.Gateway)
	contains(t, "the console", w.zwrm(t, "logs", "web-0"), boot, booted)
	follower := w.daemon.Begin(t, "logs", "web-0", "-f")
	times := func(n int) func() error {
		return func() error {
			if text := follower.Stdout(); strings.Count(text, boot) != n || strings.Count(text, booted) != n {
				return fmt.Errorf("the guest has not booted %d times:\n%s", n, text)
			}
			return nil
		}
	}
	eventually(t, "logs -f shows the first boot", times(1))
	w.zwrm(t, "restart", "web-0")
	if runs(was.PID) {
		t.Errorf("the VMM from before the restart, process %d, is left", was.PID)
	}
	w.againAs(t, was)
	eventually(t, "logs -f shows the second boot", times(2))
	again := w.vm(t, "web-0")
	w.Run(t, "ip", "link", "delete", again.TAP)
	w.zwrm(t, "network", "repair")
	w.againAs(t, again)
	eventually(t, "logs -f shows the third boot", times(3))
	if r := follower.Interrupt(t); r.Status != 0 || r.Stderr != "" {
		t.Errorf("logs -f ended with status %d: %s", r.Status, r.Stderr)
	}
	r := w.daemon.Zwrm(t, "restart", "web-1")
	if r.Status != 1 {
		t.Errorf("restart of a VM that is not there: exit status %d", r.Status)
	}
	contains(t, "the refusal", r.Stderr, `no VM named "web-1"`)
}

// TestVMMStandsAlone: a VMM has no descriptor of zwrmd, leads a session of its own,
// and has nothing of zwrmd's environment.
func TestVMMStandsAlone(t *testing.T) {
	reader, writer, err := os.Pipe()
	must(t, err)
	defer reader.Close()
	defer writer.Close()
	w := newWorld(t, nil, func(cmd *exec.Cmd) {
		cmd.ExtraFiles = []*os.File{writer} // such as a service manager hands over
		cmd.Env = append(cmd.Env, "SECRET=of zwrmd")
	})
	defer w.end(t)
	vm := w.deploy(t, "web", 1)[0]
	daemon := map[string]bool{}
	for _, target := range descriptors(t, w.daemon.PID()) {
		daemon[target] = true
	}
	pipe, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", writer.Fd()))
	must(t, err)
	if !daemon[pipe] {
		t.Fatalf("zwrmd itself has no %s", pipe)
	}
	for number, target := range descriptors(t, vm.PID) {
		// These have no name that tells one from another.
		if target != "/dev/null" && !strings.HasPrefix(target, "anon_inode:") && daemon[target] {
			t.Errorf("descriptor %s of the VMM is one of zwrmd: %s", number, target)
		}
	}
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", vm.PID))
	must(t, err)
	if strings.Contains(string(environment), "SECRET") {
		t.Errorf("the VMM has zwrmd's environment: %q", environment)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", vm.PID))
	must(t, err)
	_, fields, _ := strings.Cut(string(stat), ") ")
	if session := strings.Fields(fields)[3]; session != fmt.Sprint(vm.PID) { // proc_pid_stat(5)
		t.Errorf("the VMM is in session %s, not in one of its own", session)
	}
}

// descriptors returns what the descriptors of a process are, by number.
func descriptors(t *testing.T, pid int) map[string]string {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	must(t, err)
	if len(links) == 0 {
		t.Fatalf("process %d has no descriptors", pid)
	}
	found := map[string]string{}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil { // else closed meanwhile
			found[filepath.Base(link)] = target
		}
	}
	return found
}

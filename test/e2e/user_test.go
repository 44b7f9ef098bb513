package e2e_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"zwrm/internal/wire"
)

// uidBase is the default of [vmm] uid_base.
const uidBase = 1879048192

// TestVMMReachesOnlyItsOwn: each VMM is a process of a user of its own, without
// privileges and in a closed sandbox. As that user nothing of another VM, of zwrmd
// and of the host can be opened. The guest has its network nevertheless, and after
// a destroy nothing is left that the user owns.
func TestVMMReachesOnlyItsOwn(t *testing.T) {
	w := newWorld(t, private(), nil)
	defer w.end(t)
	vms := w.deploy(t, "web", 2)
	w.reaches(t, vms[0], "ping?"+vms[1].GuestIP)
	for _, vm := range vms {
		w.confined(t, vm)
	}
	mine, other := vms[0], vms[1]
	w.daemon.Attach(t, "free", "web")
	must(t, os.Chmod(filepath.Dir(w.daemon.Config), 0o755)) // so that what is in it protects itself, as in /run and /var/lib
	t.Run("files", func(t *testing.T) {
		for what, path := range map[string]string{
			"the other VM's console": filepath.Join(w.folderOf(other), "console.log"),
			"the other VM's socket":  filepath.Join(w.folderOf(other), "qmp.sock"),
			"its own folder's path":  w.folderOf(mine),
			"the folder of VMs":      w.folder(),
			"the database":           w.daemon.Database,
			"the image":              filepath.Join(filepath.Dir(w.daemon.Config), "images", "small", "kernel"),
			"the socket of zwrmd":    w.daemon.Socket,
			"the host's passwords":   "/etc/shadow",
		} {
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s is not there: %v", what, err)
			}
			if said, err := w.as(t, mine, "cat", path); err == nil || !strings.Contains(said, "Permission denied") {
				t.Errorf("%s: the VM's user gets %v %.100q", what, err, said)
			}
		}
		if said, err := w.as(t, mine, "sh", "-c", `echo x > /proc/`+fmt.Sprint(other.PID)+`/mem`); err == nil {
			t.Errorf("the VM's user writes the other VM's memory: %s", said)
		}
		if said, err := w.as(t, mine, "kill", "-0", fmt.Sprint(other.PID)); err == nil {
			t.Errorf("the VM's user may signal the other VMM: %s", said)
		}
	})
	t.Run("TAPs", func(t *testing.T) {
		for _, tap := range []string{mine.TAP, other.TAP, w.vm(t, "free").TAP} {
			if err := w.openTAP(t, uidBase, tap); !errors.Is(err, unix.EPERM) {
				t.Errorf("the VM's user opens %s: %v, want EPERM", tap, err)
			}
		}
		if err := w.openTAP(t, 0, w.vm(t, "free").TAP); err != nil { // the control: it is free
			t.Errorf("root opens a free TAP: %v", err)
		}
	})
	w.zwrm(t, "restart", "web-0")
	w.againAs(t, mine)
	w.confined(t, w.vm(t, "web-0"))
	w.zwrm(t, "destroy", "web")
	w.ownsNothing(t)
}

// folderOf returns the folder of a VM, as its VMM has it.
func (w *world) folderOf(vm wire.VM) string {
	folder, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", vm.PID))
	if err != nil {
		return err.Error()
	}
	return folder
}

// confined checks what the kernel says of a VMM.
func (w *world) confined(t *testing.T, vm wire.VM) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", vm.PID))
	must(t, err)
	id := fmt.Sprint(uidBase + vm.Slot)
	for field, want := range map[string]string{
		"Uid": strings.Repeat(id+" ", 4), "Gid": strings.Repeat(id+" ", 4), "Groups": "",
		"CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapInh": "0000000000000000", "CapAmb": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2",
	} {
		_, rest, _ := strings.Cut(string(text), "\n"+field+":")
		line, _, _ := strings.Cut(rest, "\n")
		if got := strings.Join(strings.Fields(line), " "); got != strings.TrimSpace(want) {
			t.Errorf("%s of the VMM of %s is %q, want %q", field, vm.Name, got, want)
		}
	}
	info, err := os.Stat(w.folderOf(vm))
	must(t, err)
	if uid := info.Sys().(*syscall.Stat_t).Uid; fmt.Sprint(uid) != id || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of %s is %d's with mode %s", vm.Name, uid, info.Mode())
	}
}

// as runs a program as the user of a VM, in the host's network, and returns what it
// said.
func (w *world) as(t *testing.T, vm wire.VM, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = "/"
	id := uidBase + vm.Slot
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	var said []byte
	var err error
	w.Do(t, func() { said, err = cmd.CombinedOutput() })
	return string(said), err
}

// openTAP opens a TAP of the host with the rights of a user, for whom /dev/net/tun is
// open already, as it is for everybody where udev says so.
func (w *world) openTAP(t *testing.T, uid int, name string) (result error) {
	t.Helper()
	w.Do(t, func() {
		file, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
		must(t, err)
		defer file.Close()
		request, err := unix.NewIfreq(name)
		must(t, err)
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		// Do's thread is its own; it gets root's rights back before it is used again.
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0))
		if errno != 0 {
			t.Fatalf("become %d: %v", uid, errno)
		}
		result = unix.IoctlIfreq(int(file.Fd()), unix.TUNSETIFF, request)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0)); errno != 0 {
			t.Fatalf("become root: %v", errno)
		}
	})
	return result
}

// ownsNothing looks for processes and files of the VMs' users.
func (w *world) ownsNothing(t *testing.T) {
	t.Helper()
	ours := func(info fs.FileInfo) bool {
		uid := info.Sys().(*syscall.Stat_t).Uid
		return uid >= uidBase && uid < uidBase+1<<14
	}
	for _, root := range []string{w.Dir, filepath.Dir(w.daemon.Database)} {
		must(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if info, err := entry.Info(); err == nil && ours(info) {
				t.Errorf("%s is left, of a VM's user", path)
			}
			return nil
		}))
	}
	if left := w.processes(t); left != "" {
		t.Errorf("processes are left:\n%s", left)
	}
}

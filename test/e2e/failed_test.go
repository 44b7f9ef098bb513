package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"zwrm/test/zwrmtest"
)

// TestFailedDeploy: when a VM cannot be started, deploy and scale say what its VMM
// said last, and everything is as it was before.
func TestFailedDeploy(t *testing.T) {
	bin := zwrmtest.TempDir(t)
	unlucky(t, bin, "shop-2")
	w := newWorld(t, private(), pathTo(bin))
	defer w.end(t)
	w.count(t, filepath.Join(bin, "running"))
	w.addTooLarge(t, "large")
	empty := w.snapshot(t)

	t.Run("VMM refuses", func(t *testing.T) {
		w.refused(t, []string{"deploy", "web", "--image", "large", "--memory", "32M"},
			`start VM "web-0"`, "QEMU ended with exit status 1; QEMU said:", "initrd is too large")
		w.same(t, empty)
	})
	t.Run("one of three", func(t *testing.T) {
		w.refused(t, []string{"deploy", "shop", "--image", "small", "--scale", "3"},
			`start VM "shop-2"`, "QEMU ended with exit status 7; QEMU said:", "out of luck")
		w.same(t, empty)
		contains(t, "status", w.zwrm(t, "network", "status", "-o", "json"), `"used": 0`)
	})
	t.Run("update and scale", func(t *testing.T) {
		was := w.deploy(t, "shop", 2)
		before := w.snapshot(t)
		w.refused(t, []string{"scale", "shop", "3"}, `start VM "shop-2"`, "out of luck")
		w.same(t, before)
		// One of the two VMs is restarted twice, since it has to go back.
		w.refused(t, []string{"deploy", "shop", "--image", "large", "--memory", "32M"},
			`update VM "shop-0"`, "initrd is too large")
		w.againAs(t, was[0])
		if now := w.vm(t, "shop-1"); now != was[1] {
			t.Errorf("shop-1 is %v and was %v", now, was[1])
		}
		w.Same(t, before.network)
		w.reaches(t, was[1], "ping?"+was[0].GuestIP)
	})
}

// refused runs zwrm, which must fail and say why.
func (w *world) refused(t *testing.T, command []string, wanted ...string) {
	t.Helper()
	r := w.daemon.Zwrm(t, command...)
	if r.Status != 1 || r.Stdout != "" {
		t.Errorf("zwrm %q: exit status %d, want 1; it said %s%s", command, r.Status, r.Stdout, r.Stderr)
	}
	contains(t, "the error", r.Stderr, wanted...)
	w.daemon.Settle(t) // as Must does
}

// addTooLarge adds an image whose initrd is too large for a VM with 32 MiB, which
// QEMU finds out.
func (w *world) addTooLarge(t *testing.T, name string) {
	t.Helper()
	initrd := filepath.Join(w.Dir, "large")
	must(t, os.WriteFile(initrd, []byte("x"), 0o600))
	must(t, os.Truncate(initrd, 48<<20))
	w.zwrm(t, "image", "add", name, "--kernel", zwrmtest.Image(t, "kernel"), "--initrd", initrd)
	must(t, os.Remove(initrd))
}

// unlucky makes the QEMU of a certain VM die as soon as two other VMs run.
func unlucky(t *testing.T, dir, vm string) {
	t.Helper()
	wrapQEMU(t, dir, vm, fmt.Sprintf(`for try in $(seq 600); do
		[ "$(cat %s)" -lt 2 ] || break
		sleep 0.1
	done
	echo "out of luck" >&2
	exit 7`, filepath.Join(dir, "running")))
}

// count keeps the number of VMMs that have their control socket in a file, for a
// QEMU to read that cannot look for itself.
func (w *world) count(t *testing.T, file string) {
	t.Helper()
	write := func() {
		sockets, _ := filepath.Glob(filepath.Join(w.folder(), "*", "qmp.sock"))
		must(t, os.WriteFile(file+".new", fmt.Append(nil, len(sockets)), 0o644))
		must(t, os.Rename(file+".new", file))
	}
	write()
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				write()
			case <-over:
				return
			}
		}
	}()
	t.Cleanup(func() { close(over); <-ended })
}

// wrapQEMU makes programs with the names of QEMU in a folder. They are QEMU, except
// that the one of a certain VM runs commands first.
func wrapQEMU(t *testing.T, dir, vm, commands string) {
	t.Helper()
	for _, name := range []string{"qemu-system-x86_64", "qemu-system-aarch64"} {
		program, err := exec.LookPath(name)
		if err != nil {
			continue // that of the other architecture
		}
		script := fmt.Sprintf(`#!/bin/sh
case "$*" in "-name %s "*)
	%s ;;
esac
exec %s "$@"
`, vm, commands, program)
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
}

// pathTo has zwrmd find the programs of a folder before all others.
func pathTo(dir string) func(cmd *exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "PATH="+dir+":"+os.Getenv("PATH")) }
}

package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/nstest"
	"zwrm/internal/vmm"
)

func TestStartRunsTheGuestUntilStop(t *testing.T) {
	d, spec := openDriver(t), idleSpec(t, 0)
	p := start(t, d, spec)
	awaitConsole(t, spec.Dir, idleText)
	if got, want := entries(t, spec.Dir), "console.log qmp.sock vmm.log"; got != want {
		t.Errorf("folder has %q, want %q", got, want)
	}
	adopted, err := vmm.Adopt(p.Identity(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := adopted.Stop(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	awaitDone(t, p)
	if got, want := p.Exit(), "exit status 0"; got != want {
		t.Errorf("exit is %q, want %q", got, want)
	}
	if got, want := entries(t, spec.Dir), "console.log vmm.log"; got != want {
		t.Errorf("folder has %q, want %q", got, want)
	}
	again := start(t, d, spec)
	awaitConsole(t, spec.Dir, idleText+idleText)
	if again.Identity() == p.Identity() {
		t.Error("two processes have one identity")
	}
}

func TestStartInFolderWithLongPath(t *testing.T) {
	spec := idleSpec(t, 0)
	spec.Dir = filepath.Join(spec.Dir, strings.Repeat("long/", 40), "with, comma")
	start(t, openDriver(t), spec)
}

// TestStartAfterKill starts a VM again whose QEMU the OOM killer ended: its
// control socket is still there.
func TestStartAfterKill(t *testing.T) {
	d, spec := openDriver(t), idleSpec(t, 0)
	if err := start(t, d, spec).Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := entries(t, spec.Dir); !strings.Contains(left, controlSocket) {
		t.Fatalf("folder has %q, so this tests nothing", left)
	}
	start(t, d, spec)
}

// TestStartBesideAnother starts a VM twice. The second one must not take the TAP,
// and the first one must be found as the one of the folder.
func TestStartBesideAnother(t *testing.T) {
	d, spec := openDriver(t), idleSpec(t, 0)
	first := start(t, d, spec)
	if p, err := d.Start(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "is held by another process") {
		t.Errorf("Start = %v, %v, want that the TAP is held", p, err)
	}
	found, err := vmm.Find(filepath.Dir(spec.Dir))
	if err != nil || len(found) != 1 || found[filepath.Base(spec.Dir)] != first.Identity() {
		t.Errorf("Find = %v, %v, want %+v", found, err, first.Identity())
	}
}

func TestStartSaysWhyNot(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, spec *vmm.Spec)
		want  []string
	}{
		{"no kernel", func(t *testing.T, spec *vmm.Spec) { spec.Kernel += "-none" },
			[]string{`start QEMU of "idle-0"`, "open kernel", "kernel-none", "no such file"}},
		{"no memory", func(t *testing.T, spec *vmm.Spec) { spec.MemoryMiB = 1 << 30 },
			[]string{"exit status 1", "QEMU said: "}},
		{"TAP held by another", func(t *testing.T, spec *vmm.Spec) {
			tap := openTAP(t, spec.TAP)
			t.Cleanup(func() { tap.Close() })
		}, []string{`TAP "zvm0" is held by another process`}},
		{"no TAP", func(t *testing.T, spec *vmm.Spec) { spec.TAP = "zvm9" }, []string{`TAP "zvm9" is not there`}},
		{"TAP without name", func(t *testing.T, spec *vmm.Spec) { spec.TAP = "" }, []string{`TAP "" is not there`}},
		{"TAP with too long a name", func(t *testing.T, spec *vmm.Spec) { spec.TAP = "zvm4294967295678" }, []string{`TAP "zvm4294967295678" cannot be`}},
	}
	d := openDriver(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			spec := idleSpec(t, 0)
			test.spoil(t, &spec)
			expectNoStart(t, d, spec, test.want...)
		})
	}
}

// expectNoStart starts a VM that must not come up, and looks for what is left.
func expectNoStart(t *testing.T, d *Driver, spec vmm.Spec, want ...string) {
	t.Helper()
	p, err := d.Start(t.Context(), spec)
	if err == nil {
		p.Kill(t.Context())
		t.Fatal("it came up")
	}
	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error is %q, want it with %q", err, text)
		}
	}
	if strings.ContainsAny(err.Error(), "\n\x1b") {
		t.Errorf("error is not one plain line: %q", err)
	}
	if left := entries(t, spec.Dir); strings.Contains(left, controlSocket) {
		t.Errorf("the socket is left: %q", left)
	}
	if found, err := vmm.Find(filepath.Dir(spec.Dir)); err != nil || len(found) > 0 {
		t.Errorf("Find = %v, %v: a process is left", found, err)
	}
}

func TestStartOfQEMUThatMisbehaves(t *testing.T) {
	tests := []struct{ mode, want string }{
		{"talks nonsense", "control socket"},
		{"floods", "too long"},
		{"does not run", "internal-error"},
		{"dies", "exit status 5; QEMU said: out of luck"},
	}
	for _, test := range tests {
		t.Run(test.mode, func(t *testing.T) {
			expectNoStart(t, fakeDriver(t, test.mode), idleSpec(t, 0), test.want)
		})
	}
}

func TestStartShowsWhatTheGuestSaid(t *testing.T) {
	spec := idleSpec(t, 0)
	if err := os.Mkdir(spec.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(spec.Dir, vmm.ConsoleLog), []byte("of the boot before\n"))
	_, err := scriptDriver(t, "exit 3").Start(t.Context(), spec)
	if err == nil || strings.Contains(err.Error(), "boot before") {
		t.Errorf("Start: %v, want an error without the lines of an earlier boot", err)
	}
	_, err = scriptDriver(t, "echo 'Kernel panic' >> console.log; exit 3").Start(t.Context(), spec)
	if err == nil || !strings.Contains(err.Error(), "the guest said: of the boot before | Kernel panic") {
		t.Errorf("Start: %v, want an error with the guest's last lines", err)
	}
}

// TestStartEndsWithItsContext gives up on a QEMU that never makes its socket, and
// on one that never answers.
func TestStartEndsWithItsContext(t *testing.T) {
	tests := []struct {
		name   string
		driver func(t *testing.T, ready string) *Driver
	}{
		{"no socket", func(t *testing.T, ready string) *Driver {
			return scriptDriver(t, "echo $$ > "+ready+"; exec sleep 60")
		}},
		{"no answer", func(t *testing.T, ready string) *Driver {
			return scriptDriver(t, fakeReady+"="+ready+" exec "+fakeDriver(t, "is silent").program)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ready := filepath.Join(nstest.TempDir(t), "ready")
			if err := errors.Join(unix.Mkfifo(ready, 0o600), os.Chown(ready, testUID, testUID)); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			enough := errors.New("enough")
			running := make(chan int, 1)
			go func() {
				line, _ := os.ReadFile(ready) // waits until it runs
				pid, _ := strconv.Atoi(strings.TrimSpace(string(line)))
				running <- pid
				cancel(enough)
			}()
			spec := idleSpec(t, 0)
			_, err := test.driver(t, ready).Start(ctx, spec)
			if !errors.Is(err, enough) {
				t.Fatalf("Start: %v, want %v", err, enough) // there may be no pid to wait for
			}
			if pid := <-running; pid <= 0 || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
				t.Errorf("process %d is left", pid)
			}
			if left := entries(t, spec.Dir); strings.Contains(left, controlSocket) {
				t.Errorf("the socket is left: %q", left)
			}
		})
	}
}

// TestRootfsIsSharedAndOnlyRead runs two VMs on one image.
func TestRootfsIsSharedAndOnlyRead(t *testing.T) {
	d := openDriver(t)
	rootfs := filepath.Join(t.TempDir(), "root,fs")
	if err := os.WriteFile(rootfs, make([]byte, 1<<20), 0o600); err != nil { // as an earlier zwrmd took images in
		t.Fatal(err)
	}
	for slot := range 2 {
		spec := idleSpec(t, slotOf(slot))
		spec.Rootfs = rootfs
		p := start(t, d, spec)
		all := openFlags(t, p.Identity().PID, rootfs)
		if len(all) < 2 {
			t.Errorf("QEMU has the image open %d times: as it inherited it, and once more", len(all))
		}
		for _, flags := range all {
			if flags&unix.O_ACCMODE != unix.O_RDONLY {
				t.Errorf("QEMU has the image open with flags %#o", flags)
			}
		}
		if got, want := entries(t, spec.Dir), "console.log qmp.sock vmm.log"; got != want {
			t.Errorf("folder has %q, want %q: writes go to a file without a name", got, want)
		}
	}
}

// openFlags returns the flags of a process's descriptors of a file (proc_pid_fdinfo(5)).
func openFlags(t *testing.T, pid int, path string) (all []int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/", pid)
	fds, err := os.ReadDir(dir + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(dir + "fd/" + fd.Name()); err != nil || target != path {
			continue
		}
		info, err := os.ReadFile(dir + "fdinfo/" + fd.Name())
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(info), "flags:")
		flags, err := strconv.ParseInt(strings.Fields(rest)[0], 8, 0)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, int(flags))
	}
	return all
}

// TestFloodedConsole: a guest that writes on its console while nobody cuts the log
// fills no disk. It runs on, what does not fit is lost, and what it writes behind a cut
// is there.
func TestFloodedConsole(t *testing.T) {
	d, spec := openDriver(t), floodSpec(t, 0)
	if err := os.MkdirAll(spec.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// A log that is nearly full already; it takes up no disk.
	log := filepath.Join(spec.Dir, vmm.ConsoleLog)
	writeFile(t, log, nil)
	if err := errors.Join(os.Chmod(log, 0o600), os.Truncate(log, largestLog-4096)); err != nil {
		t.Fatal(err)
	}
	p := start(t, d, spec)
	size := func() int64 {
		t.Helper()
		info, err := os.Stat(log)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	for end := time.Now().Add(long); size() < largestLog; {
		if time.Now().After(end) {
			t.Fatalf("the log has %d bytes: the guest does not write", size())
		}
		time.Sleep(time.Millisecond)
	}
	for range 100 { // the guest writes on
		if got := size(); got > largestLog {
			t.Fatalf("the log has %d bytes", got)
		}
		time.Sleep(time.Millisecond)
	}
	if p.Exit() != "" {
		t.Fatalf("QEMU ended: %s", p.Exit())
	}
	if err := vmm.NewConsole(spec.Dir).Trim(8192, nil); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(long); size() == 0; {
		if time.Now().After(end) {
			t.Fatal("what the guest writes behind the cut is lost")
		}
		time.Sleep(time.Millisecond)
	}
}

// TestMaxFile: a guest may change all of its disk.
func TestMaxFile(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	writeFile(t, disk, nil)
	if err := os.Truncate(disk, 1<<40); err != nil {
		t.Fatal(err)
	}
	for rootfs, want := range map[string]uint64{"": largestLog, disk: 1<<40 + 1<<34 + largestLog} {
		if got, err := maxFile(vmm.Spec{Rootfs: rootfs}); err != nil || got != want {
			t.Errorf("rootfs %q: %d bytes (%v), want %d", rootfs, got, err, want)
		}
	}
}

package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/nstest"
	"zwrm/internal/model"
)

// long is more than any of these tests takes; it only ends a test that hangs.
const long = 30 * time.Second

// testUser is whom the programs of these tests run as.
func testUser() User { return User{ID: 1879048192} }

// give makes a folder and what is in it testUser's.
func give(t *testing.T, dir string) {
	t.Helper()
	entries, err := filepath.Glob(filepath.Join(dir, "*"))
	for _, path := range append(entries, dir) {
		err = errors.Join(err, os.Lchown(path, int(testUser().ID), int(testUser().ID)))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// launch starts a program as a VMM that is gone when the test is.
func launch(t *testing.T, dir, program string, args ...string) *Process {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	give(t, dir)
	p, err := Launch(Command{Program: path, Args: args, Dir: dir, User: testUser()})
	if err != nil {
		t.Fatalf("Launch(%q): %v", program, err)
	}
	t.Cleanup(func() {
		if err := p.Kill(context.Background()); err != nil {
			t.Errorf("process is left: %v", err)
		}
	})
	return p
}

func awaitDone(t *testing.T, p *Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(long):
		t.Fatalf("process %d is still there", p.Identity().PID)
	}
}

func TestIdentityIsThatOfProc(t *testing.T) {
	id, err := Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	// The test binary's name has no blanks, so here field 22 can be counted plainly.
	start := strings.Fields(string(stat))[21]
	want := fmt.Sprintf("%d %s %s", os.Getpid(), start, strings.TrimSpace(string(boot)))
	if got := fmt.Sprintf("%d %d %s", id.PID, id.StartTime, id.BootID); got != want {
		t.Errorf("identity is %s, want %s", got, want)
	}
}

func TestStartTimeOfProgramWithOddName(t *testing.T) {
	sleep, err := os.ReadFile(mustFind(t, "sleep"))
	if err != nil {
		t.Fatal(err)
	}
	dir := nstest.TempDir(t)
	odd := filepath.Join(dir, "a ) 1 (b")
	if err := os.WriteFile(odd, sleep, 0o755); err != nil {
		t.Fatal(err)
	}
	plain, strange := launch(t, dir, "sleep", "1000"), launch(t, dir, odd, "1000")
	a, b := plain.Identity().StartTime, strange.Identity().StartTime
	if b < a || b > a+uint64(long.Seconds())*100 { // USER_HZ is 100
		t.Errorf("start time %d, but one that was started just before has %d", b, a)
	}
}

func mustFind(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExitIsSeenAndReaped(t *testing.T) {
	tests := []struct {
		name, script, want string
	}{
		{"by itself", "exit 0", "exit status 0"},
		{"with an error", "exit 3", "exit status 3"},
		{"by a signal", "kill -9 $$", "signal: killed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := launch(t, t.TempDir(), "sh", "-c", test.script)
			awaitDone(t, p)
			if got := p.Exit(); got != test.want {
				t.Errorf("exit is %q, want %q", got, test.want)
			}
			if _, err := os.Stat("/proc/" + strconv.Itoa(p.Identity().PID)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a zombie is left: %v", err)
			}
			if err := p.Stop(t.Context(), 0); err != nil {
				t.Errorf("Stop of what has ended: %v", err)
			}
		})
	}
}

func TestStop(t *testing.T) {
	tests := []struct {
		name, trap string
		grace      time.Duration
		want       string
	}{
		{"asks first", "trap 'exit 7' TERM", long, "exit status 7"},
		{"kills what does not listen", "trap '' TERM", 0, "signal: killed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := launchReady(t, test.trap)
			if got := p.Exit(); got != "" {
				t.Errorf("exit of a running process is %q", got)
			}
			if err := p.Stop(t.Context(), test.grace); err != nil {
				t.Fatal(err)
			}
			awaitDone(t, p)
			if got := p.Exit(); got != test.want {
				t.Errorf("exit is %q, want %q", got, test.want)
			}
		})
	}
}

// launchReady starts a shell that runs a setup line, and waits until it has. The
// shell then waits in a builtin, so that its traps work at once.
func launchReady(t *testing.T, setup string) *Process {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"ready", "never"} {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := launch(t, dir, "sh", "-c", setup+"; echo > ready; read line < never")
	if _, err := os.ReadFile(filepath.Join(dir, "ready")); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestStopGivesUpWithItsContext(t *testing.T) {
	p := launchReady(t, "trap '' TERM")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Stop(ctx, long); !errors.Is(err, context.Canceled) {
		t.Errorf("Stop: %v, want that the context ended", err)
	}
	select {
	case <-p.Done():
		t.Error("the process ended, but was only asked")
	default:
	}
}

func TestAdoptFindsTheProcessAgain(t *testing.T) {
	started := launch(t, t.TempDir(), "sleep", "1000")
	adopted, err := Adopt(started.Identity(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if adopted.Identity() != started.Identity() {
		t.Errorf("adopted %+v, want %+v", adopted.Identity(), started.Identity())
	}
	if err := adopted.Stop(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	awaitDone(t, started)
	if got, want := started.Exit(), "signal: terminated"; got != want {
		t.Errorf("exit is %q, want %q", got, want)
	}
}

// TestAdoptOfOrphan takes a process that is not our child, as all are after a
// restart of zwrmd.
func TestAdoptOfOrphan(t *testing.T) {
	out, err := exec.Command("sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	id, err := Identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Adopt(id, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	awaitDone(t, p)
	if got := p.Exit(); got != "" {
		t.Errorf("exit is %q, but only its parent knows", got)
	}
	if _, err := Adopt(id, nil); !errors.Is(err, ErrGone) {
		t.Errorf("Adopt of what has ended: %v, want ErrGone", err)
	}
}

func TestAdoptOfAnotherProcess(t *testing.T) {
	id := launch(t, t.TempDir(), "sleep", "1000").Identity()
	tests := []struct {
		name string
		id   model.Process
	}{
		{"none", model.Process{}},
		{"negative pid", model.Process{PID: -1, StartTime: id.StartTime, BootID: id.BootID}},
		{"pid recycled", model.Process{PID: id.PID, StartTime: id.StartTime - 1, BootID: id.BootID}},
		{"host booted since", model.Process{PID: id.PID, StartTime: id.StartTime, BootID: "another"}},
		{"no such pid", model.Process{PID: 1 << 30, StartTime: id.StartTime, BootID: id.BootID}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if p, err := Adopt(test.id, nil); !errors.Is(err, ErrGone) {
				t.Errorf("Adopt = %v, %v, want ErrGone", p, err)
			}
		})
	}
}

func TestAdoptOfZombie(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	id, err := Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatalf("a zombie has an identity: %v", err)
	}
	if _, err := Adopt(id, nil); !errors.Is(err, ErrGone) {
		t.Errorf("Adopt: %v, want ErrGone", err)
	}
}

func TestAdoptOfThread(t *testing.T) {
	tids, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range tids {
		tid, err := strconv.Atoi(entry.Name())
		if err != nil || tid == os.Getpid() {
			continue
		}
		if _, err := Adopt(model.Process{PID: tid, StartTime: 1, BootID: boot}, nil); !errors.Is(err, ErrGone) {
			t.Errorf("Adopt of thread %d: %v, want ErrGone", tid, err)
		}
	}
}

func TestWaitingCostsNoThread(t *testing.T) {
	threads := pprof.Lookup("threadcreate")
	before := threads.Count()
	const many = 64
	dir := t.TempDir()
	for range many {
		launch(t, dir, "sleep", "1000")
	}
	if more := threads.Count() - before; more > many/2 {
		t.Errorf("%d processes cost %d threads", many, more)
	}
}

func TestLaunchGivesNothingOfOurs(t *testing.T) {
	leak := filepath.Join(t.TempDir(), "leak")
	fd, err := unix.Open(leak, unix.O_RDWR|unix.O_CREAT, 0o600) // no O_CLOEXEC, as one that we were started with
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	t.Setenv("ZWRM_SECRET", "x")
	tests := []struct{ name, script, want string }{
		{"descriptors", "cd /proc/self/fd; for f in *; do readlink $f; done | sort -u | grep -v ^/proc", "$DIR/vmm.log\n/dev/null"},
		{"environment", "env | cut -d= -f1 | grep -v -e ^_$ -e PWD -e SHLVL | sort", "LC_ALL\nPATH\nTMPDIR"},
		{"folder", "pwd", "$DIR"},
		{"session", "set -- $(cat /proc/$$/stat); test $1 = $6 && echo its own", "its own"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			awaitDone(t, launch(t, dir, "sh", "-c", test.script))
			got, err := os.ReadFile(filepath.Join(dir, MessagesLog))
			if err != nil {
				t.Fatal(err)
			}
			want := sorted(strings.ReplaceAll(test.want, "$DIR", dir))
			if got := sorted(string(got)); got != want {
				t.Errorf("it has\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func sorted(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestMessagesAreThoseOfTheLastStart(t *testing.T) {
	dir := t.TempDir()
	for _, word := range []string{"first", "second"} {
		awaitDone(t, launch(t, dir, "sh", "-c", "echo "+word+"; echo error >&2"))
	}
	got, err := Messages(dir, 5)
	if want := "second\nerror"; err != nil || got != want {
		t.Errorf("Messages = %q, %v, want %q", got, err, want)
	}
}

func TestLaunchRefuses(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, program string
		prepare       func(log string) error
		want          string
	}{
		{"a link for its messages", "true", func(log string) error { return os.Symlink(outside, log) }, "symbolic link"},
		{"a hard link for its messages", "true", func(log string) error { return os.Link(outside, log) }, "not a regular file"},
		{"a pipe for its messages", "true", func(log string) error { return unix.Mkfifo(log, 0o600) }, "no such device"},
		{"a folder for its messages", "true", func(log string) error { return os.Mkdir(log, 0o700) }, "is a directory"},
		{"a program that is not there", "/nonexistent", func(string) error { return nil }, "start VMM"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := test.prepare(filepath.Join(dir, MessagesLog)); err != nil {
				t.Fatal(err)
			}
			program := test.program
			if !filepath.IsAbs(program) {
				program = mustFind(t, program)
			}
			if _, err := Launch(Command{Program: program, Dir: dir, User: testUser()}); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Launch: %v, want an error with %q", err, test.want)
			}
			if kept, err := os.ReadFile(outside); err != nil || string(kept) != "keep" {
				t.Errorf("the file outside has %q, %v", kept, err)
			}
		})
	}
}

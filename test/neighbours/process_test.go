package neighbours_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"zwrm/test/zwrmtest"
)

// arriveWithin bounds how long a test waits for what must come.
const arriveWithin = time.Minute

// unpacked returns the path of a file of a neighbour's package.
func unpacked(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(os.Getenv("ZWRM_TEST_BIN"), "neighbours", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("a neighbour is missing: %v; scripts/neighbours.sh fetches it into the folder that ZWRM_TEST_BIN names", err)
	}
	return path
}

// program is a program that runs beside a test. It is killed when the test ends.
type program struct {
	cmd    *exec.Cmd
	output string // path of the file with what it wrote
	ended  chan struct{}
}

// launch starts a program in the network of a host, with mounts of its own and an
// empty /run.
func launch(t testing.TB, host *zwrmtest.Host, env []string, command ...string) *program {
	t.Helper()
	args := append([]string{"-c", `mount -t tmpfs tmpfs /run && exec "$@"`, "sh"}, command...)
	p := &program{cmd: exec.Command("/bin/sh", args...), ended: make(chan struct{})}
	output, err := os.CreateTemp(host.Dir, filepath.Base(command[0]))
	if err != nil {
		t.Fatalf("make file for output: %v", err)
	}
	defer output.Close()
	p.output = output.Name()
	p.cmd.Stdout, p.cmd.Stderr = output, output
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	// The kernel sends the signal when the thread ends that started the program, so
	// that thread stays until the program has ended.
	started := make(chan error)
	go host.Do(t, func() {
		defer close(p.ended)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
		}
	})
	if err := <-started; err != nil {
		t.Fatalf("start %q: %v", command, err)
	}
	t.Cleanup(func() {
		p.end(t, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s said:\n%s", command[0], p.said(t))
		}
	})
	return p
}

// said returns what the program has written until now.
func (p *program) said(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(p.output)
	if err != nil {
		t.Errorf("read output: %v", err)
	}
	return string(text)
}

// signal sends a signal to a program that runs.
func (p *program) signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Fatalf("send %v: %v", signal, err)
	}
}

// end sends a signal and waits for the end. The program may have ended before.
func (p *program) end(t testing.TB, signal syscall.Signal) {
	t.Helper()
	_ = p.cmd.Process.Signal(signal)
	select {
	case <-p.ended:
	case <-time.After(arriveWithin):
		t.Errorf("%v does not end after %v", p.cmd.Args, signal)
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for timeout := time.After(arriveWithin); !holds(); {
		select {
		case <-poll.C:
		case <-timeout:
			t.Fatalf("%s: not after %s", what, arriveWithin)
		}
	}
}

// must reports an error that there must not be.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

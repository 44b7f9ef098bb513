package zwrmtest

import (
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/nstest"
)

// endWithin bounds how long a program may take to end.
const endWithin = time.Minute

// process is a program that runs in a namespace.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr output
	ended          chan struct{}
}

// Result is how a program ended.
type Result struct {
	Stdout, Stderr string
	Status         int // exit status, -1 after a signal
}

// Try runs a program in a namespace to its end.
func Try(t testing.TB, ns *nstest.Namespace, name string, args ...string) Result {
	t.Helper()
	return start(t, ns, exec.CommandContext(t.Context(), name, args...)).wait(t)
}

// Run is Try for a program that must succeed. It returns its stdout.
func Run(t testing.TB, ns *nstest.Namespace, name string, args ...string) string {
	t.Helper()
	r := Try(t, ns, name, args...)
	if r.Status != 0 {
		t.Fatalf("%s %s: exit status %d: %s", name, strings.Join(args, " "), r.Status, r.Stderr)
	}
	return r.Stdout
}

// start starts a program in a namespace. It is killed when the test ends, or when
// the test binary does.
func start(t testing.TB, ns *nstest.Namespace, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd, newOutput(t, "stdout"), newOutput(t, "stderr"), make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.stdout.file, p.stderr.file
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// The kernel sends the signal when the thread ends that started the program, so
	// that thread stays until the program has ended.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error)
	go ns.Do(t, func() {
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // ProcessState says it
			close(p.ended)
		}
	})
	if err := <-started; err != nil {
		t.Fatalf("start %q: %v", cmd.Path, err)
	}
	t.Cleanup(p.kill)
	return p
}

// kill ends the program at once, and returns when it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.ended
}

// wait returns when the program has ended.
func (p *process) wait(t testing.TB) Result {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(endWithin):
		t.Fatalf("%q has not ended after %s; it said:\n%s", p.cmd.Args, endWithin, p.stderr.String())
	}
	return Result{p.stdout.String(), p.stderr.String(), p.cmd.ProcessState.ExitCode()}
}

// output is what a program writes: a file in memory, so that nothing has to read
// along, and nothing waits for children that hold it open.
type output struct{ file *os.File }

func newOutput(t testing.TB, name string) output {
	t.Helper()
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatalf("make file for %s: %v", name, err)
	}
	file := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { file.Close() })
	return output{file}
}

// String returns what was written until now.
func (o output) String() string {
	text, err := io.ReadAll(io.NewSectionReader(o.file, 0, math.MaxInt64))
	if err != nil {
		return fmt.Sprintf("(cannot be read: %v)", err)
	}
	return string(text)
}

// Binary returns the path of a program under test: of the folder that the
// environment names in ZWRM_TEST_BIN.
func Binary(t testing.TB, name string) string {
	t.Helper()
	return inFolder(t, "ZWRM_TEST_BIN", name, "the programs that make build makes")
}

// Image returns the path of a file of the guest image: of the folder that the
// environment names in ZWRM_TEST_IMAGE.
func Image(t testing.TB, name string) string {
	t.Helper()
	return inFolder(t, "ZWRM_TEST_IMAGE", name, "the kernel and initrd that make image makes")
}

func inFolder(t testing.TB, variable, name, what string) string {
	t.Helper()
	dir := os.Getenv(variable)
	if dir == "" {
		t.Fatalf("%s is not set: it names the folder with %s; scripts/test.sh sets it", variable, what)
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s has no %q: %v", variable, name, err)
	}
	return path
}

package zwrmtest

import (
	"os/exec"
	"syscall"
	"testing"

	"zwrm/internal/host/nstest"
)

// Running is a program that runs beside the test.
type Running struct{ process *process }

// Begin starts the command zwrm against zwrmd and does not wait for its end.
func (d *Daemon) Begin(t testing.TB, args ...string) *Running {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), Binary(t, "zwrm"), append([]string{"--socket", d.Socket}, args...)...)
	return &Running{start(t, d.Host.Namespace, cmd)}
}

// Begin starts a program in a namespace and does not wait for its end.
func Begin(t testing.TB, ns *nstest.Namespace, name string, args ...string) *Running {
	t.Helper()
	return &Running{start(t, ns, exec.CommandContext(t.Context(), name, args...))}
}

// PID returns the program's process id.
func (r *Running) PID() int { return r.process.cmd.Process.Pid }

// Stdout returns what the program has written until now.
func (r *Running) Stdout() string { return r.process.stdout.String() }

// Interrupt asks the program to end, as Ctrl-C does, and waits for that.
func (r *Running) Interrupt(t testing.TB) Result {
	t.Helper()
	_ = r.process.cmd.Process.Signal(syscall.SIGINT) // it may have ended by itself
	return r.process.wait(t)
}

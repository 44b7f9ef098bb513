package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
	"zwrm/internal/model"
)

// ErrGone says that a process has ended, or that its pid belongs to another one.
var ErrGone = errors.New("process is gone")

// Process is a running VMM: a child of this zwrmd, or one that a zwrmd before
// this one started. It is held by a pidfd (pidfd_open(2)), which names one
// process for good: a signal never reaches another process that has got the pid
// since. The pidfds wait in the runtime's poller, so a VMM costs no thread.
type Process struct {
	id    model.Process
	pidfd *os.File
	done  chan struct{}
	exit  string // written before done is closed
	hook  effect.Hook
}

// Adopt finds a process again that an earlier zwrmd started. The error is
// ErrGone when it has ended, when it is a zombie, or when the host was booted
// since.
//
// The pidfd is opened before the start time is compared: whatever process has
// the pid by then keeps it as long as we look, so a recycled pid is found out. The hook,
// which may be nil, is told of signals.
func Adopt(id model.Process, hook effect.Hook) (*Process, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	if id.PID <= 0 || id.BootID != boot {
		return nil, fmt.Errorf("adopt process %d: %w", id.PID, ErrGone)
	}
	pidfd, err := openPidfd(id.PID)
	if err != nil {
		return nil, fmt.Errorf("adopt process %d: %w", id.PID, err)
	}
	start, err := startTime(id.PID)
	switch {
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH):
		err = ErrGone // ended and reaped behind our open
	case err == nil && (start != id.StartTime || ended(pidfd)):
		err = ErrGone
	}
	if err != nil {
		pidfd.Close()
		return nil, fmt.Errorf("adopt process %d: %w", id.PID, err)
	}
	// Its exit status goes to whoever is its parent now, so there is nothing to reap.
	return watch(id, pidfd, hook, func() string { return "" }), nil
}

// watch returns the Process of an open pidfd. It calls reap once the process has
// ended, for the description of how.
func watch(id model.Process, pidfd *os.File, hook effect.Hook, reap func() string) *Process {
	p := &Process{id: id, pidfd: pidfd, hook: hook, done: make(chan struct{})}
	go func() {
		awaitEnd(pidfd)
		p.exit = reap()
		close(p.done)
		pidfd.Close() // behind done: who finds it closed finds done closed as well
	}()
	return p
}

// Identity returns what Adopt finds the process by.
func (p *Process) Identity() model.Process { return p.id }

// Done returns a channel that is closed when the process has ended. A child of
// ours is then reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit says how the process ended, as in "exit status 1". It is empty while the
// process runs, and stays empty for an adopted one.
func (p *Process) Exit() string {
	select {
	case <-p.done:
		return p.exit
	default:
		return ""
	}
}

// Stop asks the process to end (SIGTERM), makes it end after the grace time
// (SIGKILL), and returns when it is gone. When ctx ends first, the error is that
// of ctx, and the process keeps the signals that it got.
func (p *Process) Stop(ctx context.Context, grace time.Duration) error {
	if err := p.signal(unix.SIGTERM); err != nil {
		return err
	}
	patience := time.NewTimer(grace)
	defer patience.Stop()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop process %d: %w", p.id.PID, context.Cause(ctx))
	case <-patience.C:
	}
	return p.Kill(ctx)
}

// Kill ends the process (SIGKILL) and returns when it is gone. When ctx ends
// first, which takes a kernel call that does not return, the error is that of ctx.
func (p *Process) Kill(ctx context.Context) error {
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kill process %d: %w", p.id.PID, context.Cause(ctx))
	}
}

// signal sends a signal to the process. That it has ended is not an error.
func (p *Process) signal(sig unix.Signal) error {
	err := effect.Do(p.hook, opSignal, func() error {
		return control(p.pidfd, func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, 0) })
	})
	if err == nil || errors.Is(err, unix.ESRCH) {
		return nil
	}
	select {
	case <-p.done:
		return nil
	default:
		return fmt.Errorf("send %s to process %d: %w", unix.SignalName(sig), p.id.PID, err)
	}
}

// openPidfd returns a file for the process that has the pid now, or ErrGone.
func openPidfd(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	switch {
	case errors.Is(err, unix.ESRCH):
		return nil, ErrGone
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT):
		return nil, ErrGone // a thread has the number now; which error, depends on the kernel's version
	case err != nil:
		return nil, fmt.Errorf("open pidfd: %w", err)
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	if err := file.SetReadDeadline(time.Time{}); err != nil { // fails when the poller did not take it
		file.Close()
		return nil, fmt.Errorf("wait for pidfd: %w", err)
	}
	return file, nil
}

// awaitEnd returns when the process of the pidfd has ended. A pidfd is readable
// from then on (pidfd_open(2)), whether or not somebody reaped the process.
func awaitEnd(pidfd *os.File) {
	conn, err := pidfd.SyscallConn()
	if err != nil {
		return // closed, which only happens behind the end
	}
	_ = conn.Read(func(fd uintptr) bool { return readable(int(fd)) })
}

// ended reports whether the process of the pidfd has ended. A zombie has.
func ended(pidfd *os.File) bool {
	is := false
	_ = control(pidfd, func(fd int) error {
		is = readable(fd)
		return nil
	})
	return is
}

func readable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
}

// control calls f with the descriptor, which stays open that long.
func control(file *os.File, f func(fd int) error) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}

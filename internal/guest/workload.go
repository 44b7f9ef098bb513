package guest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// path is where the workload finds its programs; the kernel gives none to init.
const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// RunWorkload runs /workload of the initramfs until it ends, or a shell on the
// console when there is none, and says how it ended.
func RunWorkload(console Console) error {
	program, err := workload("/workload", "/bin/sh")
	if err != nil {
		return err
	}
	console.Say("running %s", program)
	status, err := Supervise(program)
	if err != nil {
		return err
	}
	console.Say("%s ended: %s", program, describeStatus(status))
	return nil
}

// workload returns the first of the programs that is there and can be run.
func workload(programs ...string) (string, error) {
	for _, program := range programs {
		if info, err := os.Stat(program); err == nil && info.Mode().IsRegular() && unix.Access(program, unix.X_OK) == nil {
			return program, nil
		}
	}
	return "", fmt.Errorf("nothing to run: no root= on the kernel command line, and no executable %s in the initramfs",
		strings.Join(programs, " or "))
}

// Supervise runs a program in a session of its own, on the streams of this
// process, and returns how it ended. Meanwhile it reaps every other child:
// orphans become children of the first process, and stay zombies until it waits
// for them. So nothing else in this process may start children.
func Supervise(program string) (unix.WaitStatus, error) {
	pid, err := syscall.ForkExec(program, []string{program}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   append(os.Environ(), path),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("run %q: %w", program, err)
	}
	for {
		var status unix.WaitStatus
		reaped, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for %q: %w", program, err)
		case reaped == pid:
			return status, nil
		}
	}
}

// describeStatus says how a process ended, as in "exit status 3".
func describeStatus(status unix.WaitStatus) string {
	if status.Signaled() {
		return fmt.Sprintf("killed by %s", unix.SignalName(status.Signal()))
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}

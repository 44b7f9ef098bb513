package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// User is whom a VMM runs as. Each VM has its own, so that a guest that breaks
// into its VMM gets what is that VM's already, and nothing of another one.
type User struct {
	ID     uint32   // uid and gid; no account of the host has the number
	Groups []uint32 // further groups, such as that of /dev/kvm
}

// The limits of a VMM. They bound what one that a guest broke into takes from the
// host, and are far from what VMMs take by themselves.
const (
	maxFiles   = 1024
	maxThreads = 512 // as many processes and threads the user may have: virtual CPUs, and those for disks
	killFirst  = 200 // oom_score_adj (proc_pid_oom_score_adj(5))
)

// Bounds are limits that not every VMM has the same of. 0 is none.
type Bounds struct {
	CPUSeconds uint64
	FileBytes  uint64 // of each file that it writes
}

// Command returns the command that runs a program as the user, within the limits
// of a VMM and the given bounds. It is run by Run or Launch, and killed when ctx ends.
//
// The limits are set by prlimit, of util-linux: a process's limits are set by
// itself, or by root with a privilege that containers do not have, and Go lets a
// program do nothing between fork and exec.
func (u User) Command(ctx context.Context, bounds Bounds, program string, args ...string) (*exec.Cmd, error) {
	if u.ID == 0 {
		return nil, errors.New("no VMM runs as root")
	}
	prlimit, err := exec.LookPath("prlimit")
	if err == nil {
		_, err = os.Stat(program) // prlimit would find it missing only once it runs
	}
	if err != nil {
		return nil, err
	}
	limits := []limit{
		{"core", unix.RLIMIT_CORE, 0}, // it would have the guest's memory
		{"nofile", unix.RLIMIT_NOFILE, maxFiles},
		{"nproc", unix.RLIMIT_NPROC, maxThreads},
	}
	if bounds.CPUSeconds > 0 {
		limits = append(limits, limit{"cpu", unix.RLIMIT_CPU, bounds.CPUSeconds})
	}
	if bounds.FileBytes > 0 {
		limits = append(limits, limit{"fsize", unix.RLIMIT_FSIZE, bounds.FileBytes})
	}
	var line []string
	for _, l := range limits {
		option, err := l.option()
		if err != nil {
			return nil, err
		}
		line = append(line, option)
	}
	line = append(append(line, "--", program), args...)
	cmd := exec.CommandContext(ctx, prlimit, line...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Credential: &syscall.Credential{Uid: u.ID, Gid: u.ID, Groups: u.Groups},
	}
	return cmd, nil
}

// limit is one of the limits of a process (getrlimit(2)).
type limit struct {
	name     string
	resource int
	most     uint64
}

// option returns it as prlimit takes it. Nobody may have more than zwrmd.
func (l limit) option() (string, error) {
	var ours unix.Rlimit
	if err := unix.Getrlimit(l.resource, &ours); err != nil {
		return "", fmt.Errorf("read limit %q: %w", l.name, err)
	}
	return fmt.Sprintf("--%s=%d", l.name, min(l.most, ours.Max)), nil
}

// Run runs what Command returned to its end. It ends with zwrmd, too.
func Run(cmd *exec.Cmd) error {
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL // sent when the thread ends that started it
	return onThread(func() error {
		if err := startConfined(cmd); err != nil {
			return err
		}
		return cmd.Wait()
	})
}

// start starts what Command returned.
func start(cmd *exec.Cmd) error {
	return onThread(func() error { return startConfined(cmd) })
}

// onThread calls f on a thread of its own, which ends with its goroutine, since that
// never unlocks it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// startConfined starts a program with no way to new privileges (no_new_privs, see
// prctl(2)), and so that it makes files that are its own alone. Both is set in the
// thread that starts it, from which it inherits them.
//
// It also inherits that SIGXFSZ is ignored, in zwrmd as well: a write past the bound
// of a file fails then, where it would end the VMM.
func startConfined(cmd *exec.Cmd) error {
	signal.Ignore(unix.SIGXFSZ)
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // which holds the umask
		return fmt.Errorf("part with zwrmd's umask: %w", err)
	}
	unix.Umask(0o077)
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("renounce new privileges: %w", err)
	}
	return cmd.Start()
}

// expend has the kernel, when the host has no memory left, kill the VMM before
// the host's own programs.
func expend(pid int) error {
	path := "/proc/" + strconv.Itoa(pid) + "/oom_score_adj"
	err := os.WriteFile(path, []byte(strconv.Itoa(killFirst)), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) { // ended meanwhile
		return err
	}
	return nil
}

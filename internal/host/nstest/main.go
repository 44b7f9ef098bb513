package nstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
)

// stage is the name of an environment variable that says how far Main has got.
const stage = "ZWRM_NSTEST"

// The values of stage.
const (
	inside = "inside" // in namespaces of its own
	ready  = "ready"  // which are set up: so are those of its children
)

// Main is for TestMain: Enter, then the tests. It does not return.
func Main(m *testing.M) {
	Enter()
	os.Exit(m.Run())
}

// Enter goes on in a second process of the same binary, which has its own network
// namespace (with lo up), its own mounts and a sysfs that shows that network. The
// whole process is inside, with every goroutine and child, so code under test needs
// no care for namespaces. In the first process it does not return.
//
// Without root it fails: a privileged test that is skipped tests nothing.
func Enter() {
	switch os.Getenv(stage) {
	case "":
		os.Exit(outside())
	case inside:
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "nstest:", err)
			os.Exit(1)
		}
	}
}

// Inside reports whether Main made this process, which so has mounts of its own.
func Inside() bool { return os.Getenv(stage) != "" }

// outside runs the same binary inside and returns its exit status.
func outside() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "nstest: this makes network namespaces of its own and needs root: run it as root")
		return 1
	}
	// The kernel sends the signal when the thread that started the child ends.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), stage+"="+inside)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	// Whoever ends this process means the other one, which may have something to say.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	err := cmd.Start()
	if err == nil {
		go func() {
			for s := range signals {
				_ = cmd.Process.Signal(s) // it may have ended
			}
		}()
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "nstest: run in namespaces of its own:", err)
	return 1
}

// prepare makes the new namespaces usable.
func prepare() error {
	// Without this, mounts made inside would show up on the machine.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	return errors.Join(up(conn, "lo"), conn.Close(), os.Setenv(stage, ready))
}

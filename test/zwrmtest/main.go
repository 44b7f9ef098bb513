package zwrmtest

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/nstest"
)

// Main is nstest.Main for tests that run no VMs. They start zwrmd often, and mostly
// wait for what must not come, so many of them run at once.
func Main(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		fail(err)
	}
	Enter()
	os.Exit(m.Run())
}

// Enter is nstest.Enter for a process that runs no VMs.
func Enter() {
	nstest.Enter()
	if err := hideKVM(); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "zwrmtest:", err)
	os.Exit(1)
}

// hideKVM hides it from this process: where KVM is there and does not work, zwrmd takes
// seconds to find out.
func hideKVM() error {
	if _, err := os.Stat("/dev/kvm"); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := unix.Mount("/dev/null", "/dev/kvm", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("hide /dev/kvm: %w", err)
	}
	return nil
}

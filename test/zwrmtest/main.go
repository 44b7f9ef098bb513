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
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "zwrmtest:", err)
		os.Exit(1)
	}
	nstest.Main(m)
}

func prepare() error {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		return err
	}
	if !nstest.Inside() {
		return nil
	}
	// Where KVM is there and does not work, zwrmd takes seconds to find out.
	if _, err := os.Stat("/dev/kvm"); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// For this process alone: without the first, the machine would lose it too.
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount("/dev/null", "/dev/kvm", "", unix.MS_BIND, "")
	}
	if err != nil {
		return fmt.Errorf("hide /dev/kvm: %w", err)
	}
	return nil
}

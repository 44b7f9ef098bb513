package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ModuleDir is the folder of the initramfs that holds the kernel modules, each
// as NAME.ko and uncompressed.
const ModuleDir = "/lib/modules"

// Modules returns the kernel modules of a guest's devices, each after those it
// depends on: there is no modprobe here. The block device is needed only for a
// root file system.
func Modules(withRoot bool) []string {
	names := []string{"virtio_ring", "virtio", "virtio_mmio", "failover", "net_failover", "virtio_net"}
	if withRoot {
		names = append(names, "virtio_blk")
	}
	return append(names, "virtio_rng")
}

// LoadModules loads modules in the given order and goes on after each failure.
// A module that has no file is taken to be built into the kernel, and one that
// is loaded already (EEXIST) is fine: what is really missing shows as a device
// that does not appear.
func LoadModules(dir string, names []string) error {
	var errs []error
	for _, name := range names {
		if err := loadModule(filepath.Join(dir, name+".ko")); err != nil {
			errs = append(errs, fmt.Errorf("load module %q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func loadModule(path string) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	err = unix.FinitModule(int(file.Fd()), "", 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

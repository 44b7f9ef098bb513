package qemu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"zwrm/internal/effect"
	"zwrm/internal/vmm"
)

// The descriptors that QEMU gets. Where the image has no such file, it is
// /dev/null.
const (
	tapFD = 3 + iota
	kernelFD
	initrdFD
	rootfsFD
)

// descriptor returns the name by which QEMU opens a file that it has a descriptor
// of. The kernel takes that for the file itself, wherever it is, as long as the
// file lets everybody read it.
func descriptor(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// openFiles opens what QEMU is to inherit, in the order of the descriptors.
func (d *Driver) openFiles(spec vmm.Spec) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeFiles(files)
		}
	}()
	tap, err := vmm.OpenTAP(spec.TAP)
	if err != nil {
		return nil, err
	}
	files = append(files, tap)
	for _, part := range []struct{ what, path string }{
		{"kernel", spec.Kernel}, {"initrd", spec.Initrd}, {"rootfs", spec.Rootfs},
	} {
		file, err := d.openPart(part.path)
		if err != nil {
			return files, fmt.Errorf("open %s: %w", part.what, err)
		}
		files = append(files, file)
	}
	return files, nil
}

// openPart opens a file of an image. Nobody but root gets as far as the file in
// the folder of images, so that it may let everybody read it; one that an earlier
// zwrmd took in does not yet.
func (d *Driver) openPart(path string) (*os.File, error) {
	if path == "" {
		path = os.DevNull
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	const everybody = 0o444
	info, err := file.Stat()
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&everybody != everybody {
		err = effect.Do(d.hook, opLetRead, func() error { return file.Chmod(info.Mode().Perm() | everybody) })
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func closeFiles(files []*os.File) {
	for _, file := range files {
		_ = file.Close() // only read, or QEMU's by now
	}
}

const kvmDevice = "/dev/kvm"

// deviceGroup returns the group that may use a device, if it is not root's.
func deviceGroup(path string) []uint32 {
	info, err := os.Stat(path)
	if err != nil {
		return nil // a device that is not there says so itself
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	const use fs.FileMode = 0o060
	if !ok || stat.Gid == 0 || info.Mode().Perm()&use != use {
		return nil
	}
	return []uint32{stat.Gid}
}

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// newRoot is where the root file system is mounted before it becomes "/".
const newRoot = "/newroot"

// EnterRoot mounts the root file system, makes it "/", writes the network's
// names into it and becomes its init. It returns only when that fails; from the
// middle on there is nothing to go back to.
func EnterRoot(console Console, c Cmdline, n Network) error {
	if err := c.Root.mount(newRoot); err != nil {
		return err
	}
	c.Root.writeNames(console, n)
	if err := moveMounts(newRoot); err != nil {
		return err
	}
	if err := switchRoot(newRoot); err != nil {
		return err
	}
	return execInit(c.Init)
}

// mount waits for the device and mounts it in the way of the kernel's
// mount_block_root (init/do_mounts.c): each type in turn, and all of them again
// read-only when none could be mounted for writing. Unlike the kernel it also
// passes over types that the kernel does not know.
func (r Root) mount(target string) error {
	if !strings.HasPrefix(r.Device, "/dev/") {
		return fmt.Errorf("mount root=%q: only names of devices are known, as in \"/dev/vda\"", r.Device)
	}
	if err := await(fmt.Sprintf("block device %q", r.Device), r.deviceReady); err != nil {
		return fmt.Errorf("mount root=%q: %w", r.Device, err)
	}
	types, err := r.types()
	if err != nil {
		return fmt.Errorf("mount root=%q: %w", r.Device, err)
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("make mount point %q: %w", target, err)
	}
	attempts := []uintptr{unix.MS_RDONLY}
	if r.Writable {
		attempts = []uintptr{0, unix.MS_RDONLY}
	}
	for _, flags := range attempts {
		for _, t := range types {
			err = unix.Mount(r.Device, target, t, flags|unix.MS_SILENT, r.Flags)
			if err == nil {
				return nil
			}
			if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENODEV) {
				return fmt.Errorf("mount root=%q as %s: %w", r.Device, t, err)
			}
		}
	}
	return fmt.Errorf("mount root=%q as %s: %w", r.Device, strings.Join(types, ", "), err)
}

// deviceReady reports whether the device is there and is a block device.
func (r Root) deviceReady() (bool, error) {
	info, err := os.Stat(r.Device)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) != fs.ModeDevice {
		return false, fmt.Errorf("%q is no block device", r.Device)
	}
	return true, nil
}

func (r Root) types() ([]string, error) {
	if len(r.Types) > 0 {
		return r.Types, nil
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return nil, fmt.Errorf("read file systems of the kernel: %w", err)
	}
	return tryList(string(known)), nil
}

// tryList returns the types to try, from the text of /proc/filesystems: ext4,
// then the others that live on a block device in the kernel's order. ext4 goes
// first since ext2 and ext3, which the kernel lists before it, are the same
// driver with less.
func tryList(known string) []string {
	types := []string{"ext4"}
	for line := range strings.Lines(known) {
		name := strings.TrimSpace(line)
		if name != "" && name != "ext4" && !strings.HasPrefix(name, "nodev") {
			types = append(types, name)
		}
	}
	return types
}

// writeNames writes host name and name servers below newRoot. A root file system
// mounted read-only, which is the kernel's default, keeps its own.
func (r Root) writeNames(console Console, n Network) {
	switch {
	case !n.Address.IsValid():
	case !r.Writable:
		console.Say("root file system is read-only: its etc/hostname and etc/resolv.conf stay as they are")
	default:
		console.Report(n.WriteNames(newRoot))
	}
}

// moveMounts takes the kernel's file systems along to the new root. One that has
// no place there is detached, since it would hide below the new root for ever.
func moveMounts(root string) error {
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run"} {
		target := filepath.Join(root, dir)
		_ = os.Mkdir(target, 0o755) // it is there, or else the move says why not
		if unix.Mount(dir, target, "", unix.MS_MOVE, "") == nil {
			continue
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("detach %q: %w", dir, err)
		}
	}
	if err := unix.Unmount("/tmp", unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("detach \"/tmp\": %w", err)
	}
	return nil
}

// switchRoot makes root the "/" of this process and so of all that follow, as
// switch_root(8) does: the initramfs itself can be neither unmounted nor
// pivoted away, so it is emptied and covered.
func switchRoot(root string) error {
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("enter %q: %w", root, err)
	}
	if err := emptyInitramfs("/"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %q to \"/\": %w", root, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root to %q: %w", root, err)
	}
	return os.Chdir("/")
}

// emptyInitramfs gives the memory of the initramfs back. It touches nothing that
// is not in memory, so that a slip here can never cost somebody's disk.
func emptyInitramfs(dir string) error {
	var fsInfo unix.Statfs_t
	if err := unix.Statfs(dir, &fsInfo); err != nil {
		return fmt.Errorf("look at %q: %w", dir, err)
	}
	if fsInfo.Type != unix.RAMFS_MAGIC && fsInfo.Type != unix.TMPFS_MAGIC {
		return fmt.Errorf("empty %q: not an initramfs", dir)
	}
	var root unix.Stat_t
	if err := unix.Lstat(dir, &root); err != nil {
		return fmt.Errorf("look at %q: %w", dir, err)
	}
	removeBelow(dir, root.Dev)
	return nil
}

// removeBelow removes what lies below dir on the given device and leaves what is
// mounted there alone. What cannot be removed costs memory and nothing else.
func removeBelow(dir string, device uint64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		var stat unix.Stat_t
		if unix.Lstat(path, &stat) != nil || stat.Dev != device {
			continue
		}
		if entry.IsDir() {
			removeBelow(path, device)
		}
		os.Remove(path) // fails on the parents of a mount point
	}
}

// execInit becomes the init of the root file system. Like the kernel it tries
// nothing else when init= names one, and passes on what it was given itself.
func execInit(wanted string) error {
	paths := []string{"/sbin/init", "/bin/init", "/bin/sh"}
	if wanted != "" {
		paths = []string{wanted}
	}
	var errs []error
	for _, path := range paths {
		argv := append([]string{path}, os.Args[1:]...)
		errs = append(errs, fmt.Errorf("run init %q: %w", path, syscall.Exec(path, argv, os.Environ())))
	}
	return errors.Join(errs...)
}

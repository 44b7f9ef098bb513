package guest

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Mount is one file system to mount.
type Mount struct {
	Type    string
	Target  string
	Flags   uintptr // MS_* of mount(2)
	Options string  // of the file system itself
}

// Mounts returns what the kernel offers and every userland expects, parents
// before children.
func Mounts() []Mount {
	return []Mount{
		{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"devtmpfs", "/dev", unix.MS_NOSUID, "mode=0755"},
		{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"}, // 5: group tty
		{"tmpfs", "/run", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		{"tmpfs", "/tmp", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	}
}

// MountAll mounts every entry of the table and goes on after each failure. What
// the kernel has mounted already (EBUSY) is fine.
func MountAll(table []Mount) error {
	var errs []error
	for _, m := range table {
		if err := os.MkdirAll(m.Target, 0o755); err != nil {
			errs = append(errs, fmt.Errorf("make mount point %q: %w", m.Target, err))
			continue
		}
		err := unix.Mount(m.Type, m.Target, m.Type, m.Flags, m.Options)
		if err != nil && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("mount %s on %q: %w", m.Type, m.Target, err))
		}
	}
	return errors.Join(errs...)
}

package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMounts(t *testing.T) {
	var b strings.Builder
	for _, m := range Mounts() {
		b.WriteString(m.Type + " " + m.Target + " " + flagNames(m.Flags) + " " + m.Options + "\n")
	}
	want := `proc /proc nosuid,nodev,noexec 
sysfs /sys nosuid,nodev,noexec 
devtmpfs /dev nosuid mode=0755
devpts /dev/pts nosuid,noexec gid=5,mode=0620,ptmxmode=0666
tmpfs /run nosuid,nodev mode=0755
tmpfs /tmp nosuid,nodev mode=1777
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func flagNames(flags uintptr) string {
	var names []string
	for _, f := range []struct {
		bit  uintptr
		name string
	}{{unix.MS_NOSUID, "nosuid"}, {unix.MS_NODEV, "nodev"}, {unix.MS_NOEXEC, "noexec"}} {
		if flags&f.bit != 0 {
			names = append(names, f.name)
			flags &^= f.bit
		}
	}
	if flags != 0 {
		names = append(names, fmt.Sprintf("0x%x", flags))
	}
	return strings.Join(names, ",")
}

// TestMountAll: what fails is said, and what comes after it is mounted still.
func TestMountAll(t *testing.T) {
	if !ownNamespaces(t) {
		return
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "new", "run")
	err := MountAll([]Mount{
		{"nosuchfs", filepath.Join(dir, "bad"), 0, ""},
		{"tmpfs", filepath.Join(file, "below"), 0, ""},
		{"tmpfs", good, unix.MS_NOSUID, "mode=0750"},
	})
	if err == nil || !strings.Contains(err.Error(), `mount nosuchfs on "`) || !strings.Contains(err.Error(), `make mount point "`) {
		t.Errorf("got %v", err)
	}
	var info unix.Statfs_t
	if err := unix.Statfs(good, &info); err != nil || info.Type != unix.TMPFS_MAGIC {
		t.Errorf("type 0x%x, %v", info.Type, err)
	}
	if stat, err := os.Stat(good); err != nil || stat.Mode().Perm() != 0o750 {
		t.Errorf("%v, %v", stat, err)
	}
	if err := unix.Unmount(good, 0); err != nil {
		t.Error(err)
	}
}

// TestMountAllTwice: the kernel may have mounted devtmpfs itself.
func TestMountAllTwice(t *testing.T) {
	if !ownNamespaces(t) {
		return
	}
	mountOver(t, "/mnt")
	table := []Mount{{"sysfs", "/mnt/sys", 0, ""}}
	if err := errors.Join(MountAll(table), MountAll(table)); err != nil {
		t.Error(err)
	}
}

// mountOver hides a folder of the machine below an empty one, for as long as the
// mount namespace of the test lives.
func mountOver(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
}

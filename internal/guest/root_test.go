package guest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTryList(t *testing.T) {
	known := "nodev\tsysfs\nnodev\ttmpfs\n\text3\n\text2\n\text4\nnodev\tproc\n\txfs\n"
	if got, want := tryList(known), []string{"ext4", "ext3", "ext2", "xfs"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := tryList(""), []string{"ext4"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRootRefuses(t *testing.T) {
	tests := []struct {
		name   string
		device string
		want   string
	}{
		{"by UUID", "UUID=12345678", "only names of devices"},
		{"by number", "fe00", "only names of devices"},
		{"character device", "/dev/null", "no block device"},
		{"folder", "/dev/", "no block device"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := Root{Device: test.device}.mount(filepath.Join(t.TempDir(), "new"))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// TestEmptyInitramfs: all goes but what another file system holds.
func TestEmptyInitramfs(t *testing.T) {
	if !ownNamespaces(t) {
		return
	}
	mountOver(t, "/mnt")
	mkdir(t, "/mnt/bin/deep")
	mkdir(t, "/mnt/newroot")
	write(t, "/mnt/init", "x")
	write(t, "/mnt/bin/deep/file", "x")
	if err := os.Symlink("/etc", "/mnt/etc"); err != nil {
		t.Fatal(err)
	}
	mountOver(t, "/mnt/newroot")
	write(t, "/mnt/newroot/kept", "x")

	if err := emptyInitramfs("/mnt"); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob("/mnt/*")
	if err != nil || !slices.Equal(left, []string{"/mnt/newroot"}) {
		t.Errorf("left %v, %v", left, err)
	}
	if got := read(t, "/mnt/newroot/kept"); got != "x" {
		t.Errorf("kept %q", got)
	}
	if _, err := os.ReadDir("/etc"); err != nil {
		t.Error(err)
	}
}

// TestEmptyInitramfsRefuses: only what is in memory is ever emptied.
func TestEmptyInitramfsRefuses(t *testing.T) {
	if err := emptyInitramfs("/proc"); err == nil || !strings.Contains(err.Error(), "not an initramfs") {
		t.Errorf("got %v", err)
	}
}

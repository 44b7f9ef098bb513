package qemu

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDialOnlyQEMU: what a QEMU put in place of its control socket leads zwrmd, which
// may connect to every socket of the host, to none of them.
func TestDialOnlyQEMU(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "sock")
	listener, err := net.Listen("unix", elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	tests := []struct {
		name string
		make func(path string) error
		pid  int
		want string
	}{
		{"its own", func(path string) error { return os.Link(elsewhere, path) }, os.Getpid(), ""},
		{"another program's", func(path string) error { return os.Link(elsewhere, path) }, os.Getpid() + 1, "listens there"},
		{"a link to one", func(path string) error { return os.Symlink(elsewhere, path) }, os.Getpid(), "no socket"},
		{"a file", func(path string) error { return os.WriteFile(path, nil, 0o600) }, os.Getpid(), "no socket"},
		{"a pipe", func(path string) error { return unix.Mkfifo(path, 0o600) }, os.Getpid(), "no socket"},
		{"nothing", func(string) error { return nil }, os.Getpid(), errNobody.Error()},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := test.make(filepath.Join(dir, controlSocket)); err != nil {
				t.Fatal(err)
			}
			folder, err := os.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer folder.Close()
			conn, err := dial(t.Context(), folder, test.pid)
			if conn != nil {
				conn.Close()
			}
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("dial: %v, want %q", err, test.want)
			}
		})
	}
}

// TestDeviceGroup: a VM's user joins the group that may use /dev/kvm, and never root's.
func TestDeviceGroup(t *testing.T) {
	tests := []struct {
		name string
		mode os.FileMode
		gid  int
		want []uint32
	}{
		{"as Debian has it", 0o660, 104, []uint32{104}},
		{"for everybody", 0o666, 104, []uint32{104}},
		{"root's", 0o660, 0, nil},
		{"not for its group", 0o600, 104, nil},
		{"not there", 0, 0, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "device")
			if test.mode != 0 {
				writeFile(t, path, nil)
				if err := os.Chown(path, 0, test.gid); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(path, test.mode); err != nil {
					t.Fatal(err)
				}
			}
			got := deviceGroup(path)
			if len(got) != len(test.want) || len(got) == 1 && got[0] != test.want[0] {
				t.Errorf("deviceGroup = %v, want %v", got, test.want)
			}
		})
	}
}

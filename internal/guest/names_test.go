package guest

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func TestResolvConf(t *testing.T) {
	got := resolvConf([]netip.Addr{netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("9.9.9.9")})
	if want := "nameserver 1.1.1.1\nnameserver 9.9.9.9\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWriteNames(t *testing.T) {
	tests := []struct {
		name    string
		dns     []netip.Addr
		prepare func(t *testing.T, etc string)
		resolv  string
	}{
		{"no etc yet", []netip.Addr{netip.MustParseAddr("1.1.1.1")}, func(*testing.T, string) {}, "nameserver 1.1.1.1\n"},
		{"link into nowhere", []netip.Addr{netip.MustParseAddr("1.1.1.1")}, func(t *testing.T, etc string) {
			mkdir(t, etc)
			if err := os.Symlink("../run/systemd/resolve/stub-resolv.conf", filepath.Join(etc, "resolv.conf")); err != nil {
				t.Fatal(err)
			}
		}, "nameserver 1.1.1.1\n"},
		{"no name servers", nil, func(t *testing.T, etc string) {
			mkdir(t, etc)
			write(t, filepath.Join(etc, "resolv.conf"), "nameserver 192.0.2.1\n")
			write(t, filepath.Join(etc, "hostname"), "buildhost\n")
		}, "nameserver 192.0.2.1\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			test.prepare(t, filepath.Join(root, "etc"))
			if err := (Network{HostName: "web-0", DNS: test.dns}).WriteNames(root); err != nil {
				t.Fatal(err)
			}
			if got := read(t, filepath.Join(root, "etc/resolv.conf")); got != test.resolv {
				t.Errorf("resolv.conf is %q, want %q", got, test.resolv)
			}
			if got := read(t, filepath.Join(root, "etc/hostname")); got != "web-0\n" {
				t.Errorf("hostname is %q", got)
			}
			entries, err := os.ReadDir(filepath.Join(root, "etc"))
			if err != nil || len(entries) != 2 {
				t.Errorf("left in etc: %v, %v", entries, err)
			}
		})
	}
}

// TestWriteNamesBlocked: a folder in the place of the file is an error, and
// leaves nothing half done beside it.
func TestWriteNamesBlocked(t *testing.T) {
	root := t.TempDir()
	mkdir(t, filepath.Join(root, "etc/resolv.conf/full"))
	n := Network{HostName: "web-0", DNS: []netip.Addr{netip.MustParseAddr("1.1.1.1")}}
	if err := n.WriteNames(root); err == nil {
		t.Error("no error")
	}
	if _, err := os.Lstat(filepath.Join(root, "etc/resolv.conf.zwrm")); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

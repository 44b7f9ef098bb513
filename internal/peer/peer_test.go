package peer_test

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/nstest"
	"zwrm/internal/peer"
)

// TestOpen: a peer opens what it may read, by its uid and by its groups, and not what
// root may.
func TestOpen(t *testing.T) {
	const user, group, other = 4711, 4712, 4713
	dir := nstest.TempDir(t)
	hidden := filepath.Join(dir, "hidden")
	if err := os.Mkdir(hidden, 0o700); err != nil {
		t.Fatal(err)
	}
	own := func(name string, uid, gid int, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte("text"), 0o600), os.Chown(path, uid, gid), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct {
		name string
		peer peer.Peer
		path string
		want error
	}{
		{"root's, by root", peer.Peer{}, own("a", 0, 0, 0o600), nil},
		{"root's", peer.Peer{UID: user, GID: group}, own("b", 0, 0, 0o600), fs.ErrPermission},
		{"root's group's", peer.Peer{UID: user, GID: group}, own("c", 0, 0, 0o640), fs.ErrPermission},
		{"its own", peer.Peer{UID: user, GID: group}, own("d", user, 0, 0o600), nil},
		{"its group's", peer.Peer{UID: user, GID: group}, own("e", 0, group, 0o640), nil},
		{"a further group's", peer.Peer{UID: user, GID: group, Groups: []uint32{other}}, own("f", 0, other, 0o640), nil},
		{"another group's", peer.Peer{UID: user, GID: group}, own("g", 0, other, 0o640), fs.ErrPermission},
		{"everybody's, by nobody", peer.Nobody(), own("h", 0, 0, 0o644), nil},
		{"another's, by nobody", peer.Nobody(), own("i", user, 0, 0o600), fs.ErrPermission},
		{"everybody's, in root's folder", peer.Nobody(), own("hidden/j", 0, 0, 0o644), fs.ErrPermission},
		{"a process's memory", peer.Nobody(), "/proc/self/mem", fs.ErrPermission},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			file, err := test.peer.Open(test.path)
			if !errors.Is(err, test.want) {
				t.Fatalf("Open: %v, want %v", err, test.want)
			}
			if err != nil {
				return
			}
			defer file.Close()
			if text, err := io.ReadAll(file); err != nil || string(text) != "text" {
				t.Errorf("it has %q, %v", text, err)
			}
		})
	}
	// And zwrmd is root as before.
	if _, err := os.ReadFile(own("k", user, 0, 0)); err != nil {
		t.Error(err)
	}
}

// TestOpenWaitsForNoPipe: a pipe that nobody writes to holds nothing up.
func TestOpenWaitsForNoPipe(t *testing.T) {
	pipe := filepath.Join(nstest.TempDir(t), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := peer.Peer{}.Open(pipe)
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
}

// TestOf: the kernel says who connected.
func TestOf(t *testing.T) {
	path := filepath.Join(nstest.TempDir(t), "sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	groups := make([]uint32, 100) // more than is read at first
	for i := range groups {
		groups[i] = 5000 + uint32(i)
	}
	dialed := make(chan error, 1)
	var other net.Conn
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		for _, call := range [][3]uintptr{
			{unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0]))},
			{unix.SYS_SETREGID, ^uintptr(0), 4712},
			{unix.SYS_SETREUID, ^uintptr(0), 4711},
		} {
			if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], 0); errno != 0 {
				dialed <- errno
				return
			}
		}
		var err error
		other, err = net.Dial("unix", path)
		dialed <- err
	}()
	if err := <-dialed; err != nil {
		t.Fatal(err)
	}
	conn, err := listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	got, err := peer.Of(conn)
	if err := errors.Join(err, conn.Close(), other.Close()); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got.Groups)
	if got.UID != 4711 || got.GID != 4712 || !slices.Equal(got.Groups, groups) {
		t.Errorf("peer is %+v", got)
	}
	if who := peer.From(peer.With(t.Context(), got)); who.UID != 4711 {
		t.Errorf("the context says %+v", who)
	}
	if who := peer.From(t.Context()); who.UID != peer.Nobody().UID {
		t.Errorf("a context without a peer says %+v", who)
	}
}

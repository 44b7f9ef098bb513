package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"zwrm/internal/effect"
	"zwrm/internal/peer"
)

// socketGroup is the system group whose members may use the socket.
const socketGroup = "zwrm"

// maxConns is how many connections an endpoint has at once. Further ones wait until
// one of them ends, the longest in the kernel.
const maxConns = 1024

// listenUnix makes the socket: root and the group zwrm may use it. A socket file
// that a killed zwrmd left is replaced; one that somebody answers on is not.
func (d *Daemon) listenUnix(path string) (net.Listener, error) {
	if err := effect.Do(d.hook, opSocketFolder, func() error { return os.MkdirAll(filepath.Dir(path), 0o755) }); err != nil {
		return nil, fmt.Errorf("make folder of socket %q: %w", path, err)
	}
	if err := checkFolder(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("listen on %q: %w", path, err)
	}
	if err := d.removeStale(path); err != nil {
		return nil, fmt.Errorf("listen on %q: %w", path, err)
	}
	var listener net.Listener
	err := effect.Do(d.hook, opListen, func() (err error) {
		listener, err = closedToOthers().Listen(context.Background(), "unix", path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", path, err)
	}
	if err := effect.Do(d.hook, opAdmit, func() error { return admit(path) }); err != nil {
		return nil, errors.Join(fmt.Errorf("set who may use socket %q: %w", path, err), listener.Close())
	}
	return listener, nil
}

// closedToOthers listens on a socket that is root's alone from its first moment on:
// it gets the mode that it has before it gets its name (unix_bind in
// net/unix/af_unix.c), whatever the umask.
func closedToOthers() *net.ListenConfig {
	return &net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
		var failed error
		err := conn.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), 0o600) })
		return errors.Join(err, failed)
	}}
}

// checkFolder refuses a folder in which others than root can put a socket of theirs in
// place of ours. In one such as /tmp they cannot, since only who made a file may move it.
func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Uid != 0 || info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("others than root can replace files in folder %q, which is %d's with mode %s", dir, stat.Uid, info.Mode())
	}
	return nil
}

func (d *Daemon) removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("a file that is no socket is in the way")
	}
	if conn, err := net.Dial("unix", path); err == nil {
		return errors.Join(errors.New("another program answers there"), conn.Close())
	}
	return effect.Do(d.hook, opRemoveSocket, func() error { return os.Remove(path) })
}

// admit opens the socket to the group zwrm. Without that group it stays root's.
func admit(path string) error {
	group, err := user.LookupGroup(socketGroup)
	var unknown user.UnknownGroupError
	switch {
	case errors.As(err, &unknown):
		return os.Chmod(path, 0o600)
	case err != nil:
		return err
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		return err
	}
	if err := os.Chown(path, 0, gid); err != nil {
		return err
	}
	return os.Chmod(path, 0o660)
}

// readToken reads the token from a file that is kept from everybody but root and its
// group.
func readToken(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	const others = 0o027 // who must not write it, or not even read it
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != 0 || info.Mode().Perm()&others != 0 {
		return "", fmt.Errorf("token in %q is no secret: the file is %d's with mode %s; make it root's and chmod 0600", path, stat.Uid, info.Mode())
	}
	const most = 4096
	text, err := io.ReadAll(io.LimitReader(file, most))
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if len(token) < 16 {
		return "", fmt.Errorf("token in %q is shorter than 16 characters", path)
	}
	return token, nil
}

// door is a listener with room for maxConns connections.
type door struct {
	net.Listener
	room   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newDoor(listener net.Listener) *door {
	return &door{Listener: listener, room: make(chan struct{}, maxConns), closed: make(chan struct{})}
}

// Accept waits for a connection, and for room.
func (d *door) Accept() (net.Conn, error) {
	select {
	case d.room <- struct{}{}:
	case <-d.closed:
		return nil, net.ErrClosed
	}
	conn, err := d.Listener.Accept()
	if err != nil {
		<-d.room
		return nil, err
	}
	return &visitor{Conn: conn, leave: sync.OnceFunc(func() { <-d.room })}, nil
}

// Close ends it, and whoever waits.
func (d *door) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Listener.Close()
}

// visitor is a connection that takes room.
type visitor struct {
	net.Conn
	leave func()
}

// Close ends it and makes room.
func (v *visitor) Close() error {
	defer v.leave()
	return v.Conn.Close()
}

// withPeer notes for the requests of a connection whom they come from. By TCP, and
// when the kernel does not say, that is nobody.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	if v, ok := conn.(*visitor); ok {
		conn = v.Conn
	}
	local, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	who, err := peer.Of(local)
	if err != nil {
		return ctx
	}
	return peer.With(ctx, who)
}

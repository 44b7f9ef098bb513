package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"zwrm/internal/api"
	"zwrm/internal/effect"
)

// socketGroup is the system group whose members may use the socket.
const socketGroup = "zwrm"

const (
	headerWithin = 10 * time.Second
	idleWithin   = 2 * time.Minute
	finishWithin = 5 * time.Second // a stop waits this long before it cancels requests
	cancelWithin = 20 * time.Second
	maxHeader    = 64 << 10 // bytes
)

// The side effects of this package.
const (
	opSocketFolder effect.Op = "daemon.make-socket-folder"
	opRemoveSocket effect.Op = "daemon.remove-stale-socket"
	opListen       effect.Op = "daemon.make-socket"
	opAdmit        effect.Op = "daemon.set-socket-mode"
)

// endpoint is an address that the API is asked at.
type endpoint struct {
	name     string
	listener net.Listener
	handler  http.Handler
}

// listen opens the endpoints. Requests wait there until they are served.
func (d *Daemon) listen(handler http.Handler) ([]endpoint, error) {
	socket, err := d.listenUnix(d.cfg.Server.Socket)
	if err != nil {
		return nil, err
	}
	endpoints := []endpoint{{"api on " + d.cfg.Server.Socket, socket, handler}}
	if d.cfg.Server.Listen == "" {
		return endpoints, nil
	}
	token, err := readToken(d.cfg.Server.TokenFile)
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	tcp, err := net.Listen("tcp", d.cfg.Server.Listen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %q: %w", d.cfg.Server.Listen, err), socket.Close())
	}
	return append(endpoints, endpoint{"api on " + d.cfg.Server.Listen, tcp, api.RequireToken(token, handler)}), nil
}

// hangUp closes endpoints that nobody serves.
func hangUp(endpoints []endpoint) error {
	var errs []error
	for _, e := range endpoints {
		errs = append(errs, e.listener.Close())
	}
	return errors.Join(errs...)
}

// task returns the task that serves the endpoint. When its context ends it lets
// requests finish for a while, then cancels them, which makes them undo what they
// began.
func (e endpoint) task() task {
	return task{e.name, func(ctx context.Context) error {
		requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		server := &http.Server{
			Handler:           e.handler,
			ReadHeaderTimeout: headerWithin,
			IdleTimeout:       idleWithin,
			MaxHeaderBytes:    maxHeader,
			BaseContext:       func(net.Listener) context.Context { return requests },
		}
		stopped := make(chan error, 1)
		release := context.AfterFunc(ctx, func() { stopped <- shutdownServer(server, cancel) })
		err := server.Serve(e.listener)
		if release() {
			return err // it ended by itself
		}
		return <-stopped
	}}
}

func shutdownServer(server *http.Server, cancel func()) error {
	polite, done := context.WithTimeout(context.Background(), finishWithin)
	defer done()
	if server.Shutdown(polite) == nil {
		return nil
	}
	cancel()
	firm, done := context.WithTimeout(context.Background(), cancelWithin)
	defer done()
	return server.Shutdown(firm)
}

// listenUnix makes the socket: root and the group zwrm may use it. A socket file
// that a killed zwrmd left is replaced; one that somebody answers on is not.
func (d *Daemon) listenUnix(path string) (net.Listener, error) {
	if err := effect.Do(d.hook, opSocketFolder, func() error { return os.MkdirAll(filepath.Dir(path), 0o755) }); err != nil {
		return nil, fmt.Errorf("make folder of socket %q: %w", path, err)
	}
	if err := d.removeStale(path); err != nil {
		return nil, fmt.Errorf("listen on %q: %w", path, err)
	}
	var listener net.Listener
	err := effect.Do(d.hook, opListen, func() (err error) {
		listener, err = net.Listen("unix", path)
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

func readToken(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if len(token) < 16 {
		return "", fmt.Errorf("token in %q is shorter than 16 characters", path)
	}
	return token, nil
}

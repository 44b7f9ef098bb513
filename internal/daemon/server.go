package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"zwrm/internal/api"
	"zwrm/internal/effect"
)

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
	endpoints := []endpoint{{"api on " + d.cfg.Server.Socket, newDoor(socket), api.Local(withProfiles(handler))}}
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
	return append(endpoints, endpoint{"api on " + d.cfg.Server.Listen, newDoor(tcp), api.Remote(token, d.remoteNames(), handler)}), nil
}

// remoteNames returns the names by which clients may call this host.
func (d *Daemon) remoteNames() []string {
	host, _, _ := net.SplitHostPort(d.cfg.Server.Listen) // the configuration was checked
	return append([]string{strings.ToLower(host)}, d.cfg.Server.Hosts...)
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
			ConnContext:       withPeer,
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

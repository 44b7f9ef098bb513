package client

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"zwrm/internal/wire"
)

// Problem is a refusal or a failure that zwrmd reports.
type Problem struct{ wire.Problem }

// Error returns what is wrong, without the hint.
func (p *Problem) Error() string { return p.Detail }

// UnreachableError says that no zwrmd answers on the socket.
type UnreachableError struct {
	Socket string
	Hint   string // what to do
	Err    error
}

// Error returns which socket could not be reached, and why.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no zwrmd answers on %q: %s", e.Socket, e.Err)
}

// Unwrap returns why.
func (e *UnreachableError) Unwrap() error { return e.Err }

// unreachable tells the three ways apart in which a daemon is commonly missed.
func unreachable(socket string, err error) error {
	e := &UnreachableError{Socket: socket, Err: err, Hint: "zwrmd may hang: see journalctl -u zwrmd"}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		e.Err = errno // "no such file or directory", without "connect"
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Hint = "is zwrmd running? See systemctl status zwrmd; where its socket is elsewhere, name it with --socket or ZWRM_SOCKET"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Hint = "zwrmd has ended: start it with systemctl start zwrmd"
	case errors.Is(err, fs.ErrPermission):
		e.Hint = "run this as root, or as a member of the group zwrm: usermod -aG zwrm USER, then log in again"
	}
	return e
}

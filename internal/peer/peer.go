package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peer is whom a request comes from.
type Peer struct {
	UID, GID uint32
	Groups   []uint32 // further groups
}

// nobodyID is the kernel's overflow uid and gid, which no user has.
const nobodyID = 65534

// Nobody is who asks over the network: a token says that one may, not who one is on
// this host.
func Nobody() Peer { return Peer{UID: nobodyID, GID: nobodyID} }

// Of returns who connected to a unix socket of ours, as the kernel noted it then.
func Of(conn *net.UnixConn) (Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var p Peer
	if controlErr := raw.Control(func(fd uintptr) { p, err = of(int(fd)) }); controlErr != nil {
		return Peer{}, controlErr
	}
	if err != nil {
		return Peer{}, fmt.Errorf("see who asks: %w", err)
	}
	return p, nil
}

func of(fd int) (Peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	groups, err := peerGroups(fd)
	return Peer{UID: cred.Uid, GID: cred.Gid, Groups: groups}, err
}

// peerGroups reads SO_PEERGROUPS (Linux 4.13), which x/sys has no function for.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups)) * 4
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			return groups[:size/4], nil
		case unix.ERANGE: // size is what it takes
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}

// Open opens a file for reading if the peer may. It waits for no pipe, and takes no
// terminal for zwrmd's own.
//
// The rights are those of a thread, which ends with its goroutine, since that never
// unlocks it. Only those over files change: as a user with all its rights the thread,
// and so zwrmd, could be killed by that user (setfsuid(2)).
func (p Peer) Open(path string) (*os.File, error) {
	if p.UID == 0 {
		return open(path)
	}
	type result struct {
		file *os.File
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		err := p.become()
		var file *os.File
		if err == nil {
			file, err = open(path)
		}
		done <- result{file, err}
	}()
	r := <-done
	return r.file, r.err
}

func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
}

// become gives the calling thread the peer's rights over files.
func (p Peer) become() error {
	var groups unsafe.Pointer
	if len(p.Groups) > 0 {
		groups = unsafe.Pointer(&p.Groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(p.Groups)), uintptr(groups), 0); errno != 0 {
		return fmt.Errorf("take the groups of user %d: %w", p.UID, errno)
	}
	// They report no error; each returns what was before, so the second call of each
	// tells whether the first one did it.
	for _, id := range []struct {
		call  uintptr
		value uint32
	}{{unix.SYS_SETFSGID, p.GID}, {unix.SYS_SETFSUID, p.UID}} {
		_, _, _ = unix.RawSyscall(id.call, uintptr(id.value), 0, 0)
		if now, _, _ := unix.RawSyscall(id.call, uintptr(id.value), 0, 0); uint32(now) != id.value {
			return errors.New("the kernel did not let zwrmd act for the user")
		}
	}
	return nil
}

type key struct{}

// With returns a context of requests of the peer.
func With(ctx context.Context, p Peer) context.Context { return context.WithValue(ctx, key{}, p) }

// From returns whom the request of a context comes from: Nobody, when it was not said.
func From(ctx context.Context) Peer {
	if p, ok := ctx.Value(key{}).(Peer); ok {
		return p
	}
	return Nobody()
}

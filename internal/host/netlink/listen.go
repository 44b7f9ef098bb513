package netlink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listenBuffer is how many bytes of notices wait in the kernel, some 4,000 of links.
const listenBuffer = 16 << 20

// Notice is a message that nobody asked for: the kernel tells of a change.
type Notice struct {
	Kind, Flags uint16 // RTM_*, NLM_F_*
	// Port is the socket by which the change was asked for, 0 where the kernel does
	// not say. A process's first socket has the process id for its port.
	Port    uint32
	Payload []byte // valid during the call only
}

// Listener is a socket that gets the notices of multicast groups.
type Listener struct {
	file *os.File
	raw  syscall.RawConn
	in   []byte
}

// Listen opens a socket in the network namespace of the calling thread, where it
// stays, and joins groups of a protocol (RTNLGRP_*).
func Listen(protocol int, groups ...int) (*Listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "netlink")
	l := &Listener{file: file, in: make([]byte, dumpSize)}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, listenBuffer)
	}
	for _, group := range groups {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
		}
	}
	if err == nil {
		l.raw, err = file.SyscallConn()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare netlink socket: %w", err), file.Close())
	}
	return l, nil
}

// Close ends Receive.
func (l *Listener) Close() error { return l.file.Close() }

// ErrLost says that the kernel had no room for all notices.
var ErrLost = errors.New("notices were lost")

// Receive waits for notices, and then a moment longer for those that follow, since
// changes come in crowds and to be woken for each costs more than to read it. It
// calls each for every one that is there. ErrLost may come with some.
func (l *Listener) Receive(ctx context.Context, moment time.Duration, each func(Notice)) error {
	lost := false
	read := func(wait bool) error {
		var failed error
		err := l.raw.Read(func(fd uintptr) bool {
			for {
				n, from, err := unix.Recvfrom(int(fd), l.in, 0)
				switch {
				case err == unix.EINTR:
					continue
				case err == unix.EAGAIN:
					return !wait
				case err == unix.ENOBUFS:
					lost = true
					continue
				case err != nil:
					failed = fmt.Errorf("receive from kernel: %w", err)
					return true
				}
				wait = false
				if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == 0 { // the kernel, not a process that plays it
					l.pass(l.in[:n], each)
				}
			}
		})
		return errors.Join(failed, err)
	}
	if err := read(true); err != nil {
		return err
	}
	select {
	case <-time.After(moment):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := read(false); err != nil {
		return err
	}
	if lost {
		return ErrLost
	}
	return nil
}

func (l *Listener) pass(datagram []byte, each func(Notice)) {
	for m := range messages(datagram) {
		each(Notice{m.kind, m.flags, m.port, m.payload})
	}
}

package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/vmm"
)

// errNobody says that nobody listens on the control socket, yet or any more.
var errNobody = errors.New("nobody listens on QEMU's control socket")

// dial connects to the control socket that a QEMU has in its folder, or returns
// errNobody. The socket is opened first and must be one: QEMU, when a guest broke
// into it, could put a link to another program's there. The address goes by way of
// the open socket, since a path may be longer than a socket's address.
func dial(ctx context.Context, folder *os.File, pid int) (net.Conn, error) {
	socket, err := openSocket(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNobody
	}
	if err != nil {
		return nil, fmt.Errorf("open QEMU's control socket: %w", err)
	}
	defer socket.Close()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(int(socket.Fd())))
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return nil, errNobody
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("connect to QEMU's control socket: %w", err)
	}
	if err := checkPeer(conn, pid); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// openSocket opens the control socket as a file, which connects nobody.
func openSocket(folder *os.File) (*os.File, error) {
	fd, err := unix.Openat(int(folder.Fd()), controlSocket, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	socket := os.NewFile(uintptr(fd), controlSocket)
	info, err := socket.Stat()
	if err == nil && info.Mode().Type() != fs.ModeSocket {
		err = errors.New("it is no socket")
	}
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	return socket, nil
}

// checkPeer reports an error unless the process of the pid listens at the other end.
func checkPeer(conn net.Conn, pid int) error {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	if controlErr := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); controlErr != nil {
		return controlErr
	}
	if err == nil && int(peer.Pid) != pid {
		err = fmt.Errorf("process %d listens there", peer.Pid)
	}
	if err != nil {
		return fmt.Errorf("see who has QEMU's control socket: %w", err)
	}
	return nil
}

// await returns once QEMU says that the guest runs, or why it does not. QEMU
// makes its socket while it starts, so it is looked for until it is there.
func await(ctx context.Context, process *vmm.Process, dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	const pause = 5 * time.Millisecond
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	wait := func() error {
		select {
		case <-process.Done():
			return ended(process)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
			return nil
		}
	}
	conn, err := dial(ctx, folder, process.Identity().PID)
	for errors.Is(err, errNobody) {
		if err := wait(); err != nil {
			return err
		}
		conn, err = dial(ctx, folder, process.Identity().PID)
	}
	if err != nil {
		return err
	}
	return ratherEnd(ctx, process, awaitRunning(ctx, conn, wait))
}

// awaitRunning asks for the guest's state until it runs. It owns conn.
func awaitRunning(ctx context.Context, conn net.Conn, wait func() error) error {
	m, err := openMonitor(ctx, conn)
	if err != nil {
		return err
	}
	defer m.close()
	for {
		switch status, err := m.status(); {
		case err != nil:
			return err
		case status == "running":
			return nil
		case status != "prelaunch":
			return fmt.Errorf("guest does not run, its state is %.40q", status)
		}
		if err := wait(); err != nil {
			return err
		}
	}
}

// ratherEnd replaces an error of the control socket by the end of the process
// when that is its cause. The kernel closes the socket first, so it waits a moment.
func ratherEnd(ctx context.Context, process *vmm.Process, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	const moment = 200 * time.Millisecond
	timer := time.NewTimer(moment)
	defer timer.Stop()
	select {
	case <-process.Done():
		return ended(process)
	case <-timer.C:
		return err
	}
}

func ended(process *vmm.Process) error {
	return fmt.Errorf("QEMU ended with %s", process.Exit())
}

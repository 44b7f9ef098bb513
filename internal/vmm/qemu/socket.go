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

// dial connects to the control socket in a folder, or returns errNobody. The
// address goes by way of the open folder, since the folder's own path may be
// longer than a socket's address.
func dial(ctx context.Context, folder *os.File) (net.Conn, error) {
	address := "/proc/self/fd/" + strconv.Itoa(int(folder.Fd())) + "/" + controlSocket
	conn, err := new(net.Dialer).DialContext(ctx, "unix", address)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED):
		return nil, errNobody
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("connect to QEMU's control socket: %w", err)
	}
	return conn, nil
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
	conn, err := dial(ctx, folder)
	for errors.Is(err, errNobody) {
		if err := wait(); err != nil {
			return err
		}
		conn, err = dial(ctx, folder)
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

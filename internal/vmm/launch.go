package vmm

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
)

// The files that every VMM has in its folder.
const (
	ConsoleLog  = "console.log" // what the guest wrote on its console
	MessagesLog = "vmm.log"     // what the VMM itself said, since it was started
)

// Launch starts a program as a VMM that outlives zwrmd: in a session of its own,
// so that no signal meant for zwrmd's terminal or group reaches it, with nothing
// of zwrmd's environment, and with no descriptor but its messages. It runs in
// dir, where it also keeps its temporary files.
//
// A crash right behind Launch leaves a VMM that no row knows. It holds its TAP,
// so a second one cannot come up beside it; the driver finds it by its folder.
//
// The hook, which may be nil, is told of the start and of signals.
func Launch(hook effect.Hook, program, dir string, args ...string) (*Process, error) {
	var messages *os.File
	err := effect.Do(hook, opMessages, func() (err error) {
		messages, err = openMessages(dir)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer messages.Close()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TMPDIR=" + dir}
	cmd.Stdout, cmd.Stderr = messages, messages
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	closeOnExec()
	if err := effect.Do(hook, opLaunch, cmd.Start); err != nil {
		return nil, fmt.Errorf("start VMM: %w", err)
	}
	process, err := hold(cmd, hook)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hold VMM: %w", err), cmd.Process.Kill(), cmd.Wait())
	}
	return process, nil
}

// openMessages opens the file for what the VMM says, and empties it.
func openMessages(dir string) (*os.File, error) {
	messages, err := openRegular(filepath.Join(dir, MessagesLog), os.O_WRONLY|os.O_APPEND|os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("open the VMM's messages: %w", err)
	}
	if err := messages.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("empty the VMM's messages: %w", err), messages.Close())
	}
	return messages, nil
}

// hold returns the Process of a child. As long as nobody waits for the child its
// pid is not recycled, so identity and pidfd are surely of the same process.
func hold(cmd *exec.Cmd, hook effect.Hook) (*Process, error) {
	id, err := Identify(cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	pidfd, err := openPidfd(id.PID)
	if err != nil {
		return nil, err
	}
	return watch(id, pidfd, hook, func() string {
		_ = cmd.Wait() // an exit status other than 0 is an error here; the state tells it too
		return cmd.ProcessState.String()
	}), nil
}

// closeOnExec keeps every descriptor of zwrmd out of its children. Go opens its
// own that way, but those that zwrmd was started with, and those of a library
// that forgets it, would live on in the VMM: a socket there stays bound when
// zwrmd is long gone. Linux before 5.11 cannot do it; nothing is lost there that
// was not lost before.
func closeOnExec() {
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
}

// openRegular opens a file of a VM's folder. Anything but a regular file of one
// name is refused: a link in its place could lead zwrmd, which is root, to
// overwrite a file elsewhere.
func openRegular(path string, flags int) (*os.File, error) {
	file, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%q is a symbolic link, not a file", path)
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || !ok || stat.Nlink != 1 {
		file.Close()
		return nil, fmt.Errorf("%q is not a regular file with one name", path)
	}
	return file, nil
}

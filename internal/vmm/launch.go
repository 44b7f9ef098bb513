package vmm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
)

// The files that every VMM has in its folder.
const (
	ConsoleLog  = "console.log" // what the guest wrote on its console
	MessagesLog = "vmm.log"     // what the VMM itself said, since it was started
)

// Command is a VMM to launch.
type Command struct {
	Program string // path
	Args    []string
	Dir     string     // the VM's own folder
	Files   []*os.File // its descriptors 3, 4, ...
	User    User
	// MaxFile bounds each file that it writes, in bytes: above all the console, which
	// nobody cuts while no zwrmd runs. A guest that writes on has it thrown away.
	MaxFile uint64
	Hook    effect.Hook // may be nil; is told of the start and of signals
}

// Launch starts a program as a VMM that outlives zwrmd: in a session of its own,
// so that no signal meant for zwrmd's terminal or group reaches it, with nothing
// of zwrmd's environment, and with no descriptor but its messages and the given
// files. It runs as its user and in its folder, which the user owns: PrepareFolder
// saw to that. The folder's path leads through folders that only root may enter,
// so the VMM must name its files relative to where it is.
//
// A crash right behind Launch leaves a VMM that no row knows. It holds its TAP,
// so a second one cannot come up beside it; the driver finds it by its folder.
func Launch(c Command) (*Process, error) {
	var messages *os.File
	err := effect.Do(c.Hook, opMessages, func() (err error) {
		messages, err = openMessages(c.Dir)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer messages.Close()
	folder, err := openFolder(c.Dir)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	cmd, err := c.User.Command(context.Background(), Bounds{FileBytes: c.MaxFile}, c.Program, c.Args...) // it outlives every request
	if err != nil {
		return nil, fmt.Errorf("start VMM: %w", err)
	}
	cmd.Dir = "/proc/self/fd/" + strconv.Itoa(int(folder.Fd()))
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TMPDIR=."}
	cmd.Stdout, cmd.Stderr = messages, messages
	cmd.ExtraFiles = c.Files
	closeOnExec()
	if err := effect.Do(c.Hook, opLaunch, func() error { return start(cmd) }); err != nil {
		return nil, fmt.Errorf("start VMM: %w", err)
	}
	err = effect.Do(c.Hook, opExpend, func() error { return expend(cmd.Process.Pid) })
	var process *Process
	if err == nil {
		process, err = hold(cmd, c.Hook)
	}
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

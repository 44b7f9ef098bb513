package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"zwrm/internal/effect"
	"zwrm/internal/vmm"
)

// Accel is how QEMU executes a guest's instructions.
type Accel string

// The accelerators.
const (
	KVM Accel = "kvm" // by the CPU
	TCG Accel = "tcg" // by translation, in software
)

// The side effects of a Driver, beside those of package vmm.
const (
	opRemoveSocket effect.Op = "qemu.remove-control-socket"
	opLetRead      effect.Op = "qemu.let-everybody-read"
)

// Driver runs guests with QEMU.
type Driver struct {
	program string // path
	machine machine
	accel   Accel
	noKVM   error    // why guests run without it; nil: they run with it
	sandbox bool     // QEMU has -sandbox
	tscKHz  int      // told to guests; 0: they find out by themselves
	nobody  vmm.User // whom QEMU runs as when it has no guest of a VM
	hook    effect.Hook
}

var _ vmm.Driver = (*Driver)(nil)

// Open finds QEMU and decides how it executes guests, once and for all: with KVM
// where a trial run works, else with TCG and a warning in log. What it tries, it
// tries as a user of the given uid, since VMs run as such users, too. The hook, which
// may be nil, is told of processes and files.
func Open(ctx context.Context, uid uint32, log *slog.Logger, hook effect.Hook) (*Driver, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	machine, err := machineFor(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	program, err := exec.LookPath(machine.program)
	if err != nil {
		return nil, fmt.Errorf("find QEMU: %w: install Debian's package %q", err, machine.debian)
	}
	if program, err = filepath.Abs(program); err != nil {
		return nil, fmt.Errorf("find QEMU: %w", err)
	}
	d := &Driver{program: program, machine: machine, nobody: vmm.User{ID: uid}, hook: hook}
	d.sandbox = d.accepts(ctx, "-sandbox", sandbox)
	accel, reason, err := d.accelerate(ctx)
	if err != nil {
		return nil, fmt.Errorf("open QEMU: %w", err)
	}
	d.accel, d.noKVM = accel, reason
	if accel == TCG {
		if d.tscKHz, err = softTSC(ctx); err != nil {
			return nil, fmt.Errorf("open QEMU: %w", err)
		}
		log.Warn("KVM does not work here: guests run in software (QEMU TCG)",
			"reason", reason,
			"cost", "guests are about ten times slower, and QEMU does not promise to contain a hostile guest in this mode")
	}
	return d, nil
}

// accepts reports whether QEMU knows an option. Options are read in order, so it
// sees -version, which ends it, only behind a good one.
func (d *Driver) accepts(ctx context.Context, option ...string) bool {
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	cmd, err := d.nobody.Command(ctx, vmm.Bounds{}, d.program, append(option, "-version")...)
	return err == nil && vmm.Run(cmd) == nil
}

// Name returns "qemu".
func (d *Driver) Name() string { return "qemu" }

// Accel returns how guests are executed.
func (d *Driver) Accel() Accel { return d.accel }

// NoKVM returns why guests run in software; nil: they run with KVM.
func (d *Driver) NoKVM() error { return d.noKVM }

// Usable returns why no guest could be started now, though Open found all it needs;
// nil: nothing is known against it.
func (d *Driver) Usable() error {
	if _, err := exec.LookPath(d.program); err != nil {
		return fmt.Errorf("find QEMU again: %w", err)
	}
	return nil
}

// startLimit bounds a start, for a caller who does not. It is long, since many
// guests that start at once share the CPUs.
const startLimit = time.Minute

// Start runs QEMU for a guest and returns once QEMU says that the guest runs. A
// start that fails leaves no process and no socket; the logs stay.
//
// That no QEMU runs in the folder already is for the caller to know (vmm.Find).
// One that does holds the TAP, so that a second one does not come up.
func (d *Driver) Start(ctx context.Context, spec vmm.Spec) (*vmm.Process, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("guest does not run after %s", startLimit))
	defer cancel()
	silent := consoleSize(spec.Dir)
	process, err := d.launch(spec)
	if err != nil {
		return nil, fmt.Errorf("start QEMU of %q: %w", spec.Name, err)
	}
	cause := await(ctx, process, spec.Dir)
	if cause == nil {
		return process, nil
	}
	err = explain(spec, cause, consoleSize(spec.Dir) != silent)
	return nil, errors.Join(err, d.discard(ctx, process, spec.Dir))
}

// launch runs QEMU with what the VM's user may not open itself: the image, which
// is in a folder of root's, and the TAP.
func (d *Driver) launch(spec vmm.Spec) (*vmm.Process, error) {
	user := vmm.User{ID: spec.UID}
	if d.accel == KVM {
		user.Groups = deviceGroup(kvmDevice)
	}
	if err := vmm.PrepareFolder(spec.Dir, user, d.hook); err != nil {
		return nil, err
	}
	files, err := d.openFiles(spec)
	if err != nil {
		return nil, err
	}
	defer closeFiles(files)
	largest, err := maxFile(spec)
	if err != nil {
		return nil, err
	}
	return vmm.Launch(vmm.Command{Program: d.program, Args: d.args(spec), Dir: spec.Dir, Files: files, User: user, MaxFile: largest, Hook: d.hook})
}

// largestLog is how large a log may get that nobody cuts, in bytes.
const largestLog = 64 << 20

// maxFile returns how large the largest file is that QEMU may write: the one that has
// the guest's changes of its disk, which are as large as the disk and what QEMU keeps
// beside them (qcow2, less than 1/64), or a log.
func maxFile(spec vmm.Spec) (uint64, error) {
	if spec.Rootfs == "" {
		return largestLog, nil
	}
	info, err := os.Stat(spec.Rootfs)
	if err != nil {
		return 0, fmt.Errorf("look at the root file system: %w", err)
	}
	size := uint64(info.Size())
	return size + size/64 + largestLog, nil
}

// discard ends a QEMU that did not come up, also when ctx has ended.
func (d *Driver) discard(ctx context.Context, process *vmm.Process, dir string) error {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return errors.Join(process.Kill(ctx), d.removeSocket(dir))
}

func (d *Driver) removeSocket(dir string) error {
	err := effect.Do(d.hook, opRemoveSocket, func() error { return os.Remove(filepath.Join(dir, controlSocket)) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove old control socket: %w", err)
	}
	return nil
}

// explain adds to the cause of a failed start what QEMU and the guest said last.
func explain(spec vmm.Spec, cause error, guestSpoke bool) error {
	const lines = 5
	said, err := vmm.Messages(spec.Dir, lines)
	if err != nil {
		said = err.Error()
	}
	err = fmt.Errorf("start QEMU of %q: %w", spec.Name, cause)
	if said != "" {
		err = fmt.Errorf("%w; QEMU said: %s", err, oneLine(said))
	}
	if guestSpoke {
		if last, readErr := vmm.NewConsole(spec.Dir).Tail(lines); readErr == nil && last != "" {
			err = fmt.Errorf("%w; the guest said: %s", err, oneLine(last))
		}
	}
	return err
}

func oneLine(lines string) string { return strings.ReplaceAll(lines, "\n", " | ") }

// consoleSize returns how much the guest has written, which tells the lines of
// this start from those of the ones before. No log is no lines.
func consoleSize(dir string) int64 {
	info, err := os.Lstat(filepath.Join(dir, vmm.ConsoleLog))
	if err != nil {
		return 0
	}
	return info.Size()
}

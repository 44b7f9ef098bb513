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
	opMakeFolder   effect.Op = "qemu.make-folder"
	opRemoveSocket effect.Op = "qemu.remove-control-socket"
)

// Driver runs guests with QEMU.
type Driver struct {
	program string // path
	machine machine
	accel   Accel
	noKVM   error // why guests run without it; nil: they run with it
	sandbox bool  // QEMU has -sandbox
	tscKHz  int   // told to guests; 0: they find out by themselves
	hook    effect.Hook
}

var _ vmm.Driver = (*Driver)(nil)

// Open finds QEMU and decides how it executes guests, once and for all: with KVM
// where a trial run works, else with TCG and a warning in log. The hook, which may be
// nil, is told of processes and files.
func Open(ctx context.Context, log *slog.Logger, hook effect.Hook) (*Driver, error) {
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
	d := &Driver{program: program, machine: machine, hook: hook}
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
	return exec.CommandContext(ctx, d.program, append(option, "-version")...).Run() == nil
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
	console := vmm.NewConsole(spec.Dir)
	err := effect.Do(d.hook, opMakeFolder, func() error { return os.MkdirAll(spec.Dir, 0o700) })
	if err == nil {
		err = d.removeSocket(spec.Dir) // a QEMU that was killed leaves it
	}
	if err == nil {
		err = checkTAP(spec.TAP)
	}
	if err == nil {
		err = console.Create(d.hook)
	}
	if err != nil {
		return nil, fmt.Errorf("start QEMU of %q: %w", spec.Name, err)
	}
	silent := consoleSize(spec.Dir)
	process, err := vmm.Launch(d.hook, d.program, spec.Dir, d.args(spec)...)
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
	if strings.Contains(said, "/dev/net/tun") && strings.Contains(said, "Device or resource busy") {
		cause = fmt.Errorf("TAP %q is held by another process, such as a VMM that had it before: %w", spec.TAP, cause)
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

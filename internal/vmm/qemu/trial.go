package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/vmm"
)

// trial is a guest of a few instructions: it counts to 20 million and ends QEMU
// with a known status. A /dev/kvm that opens says little: in a VM that is not
// meant to have VMs of its own, KVM may be there and refuse to run, run wrongly,
// or do each instruction in software, a thousand times slower than a CPU.
type trial struct {
	firmware []byte
	options  []string // what the firmware needs to end
	status   int
}

// A CPU counts that far in 10 ms, TCG in 100 ms; QEMU itself starts in 100 ms. It waits
// longer for a CPU on a host that starts much at once.
const (
	trialCPUSeconds = 1
	trialTime       = 30 * time.Second
)

// try runs the trial with an accelerator and returns why it did not end well. A zwrmd
// that is killed leaves nothing of it: the firmware is in memory, and QEMU goes along.
func (d *Driver) try(ctx context.Context, accel Accel) error {
	firmware, err := inMemory(d.machine.trial.firmware)
	if err != nil {
		return fmt.Errorf("write firmware of trial run: %w", err)
	}
	defer firmware.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, trialTime, fmt.Errorf("a trial run did not end within %s", trialTime))
	defer cancel()
	user := d.nobody
	if accel == KVM {
		user.Groups = deviceGroup(kvmDevice)
	}
	args := append(d.base(accel), "-m", "16M", "-bios", descriptor(3))
	cmd, err := user.Command(ctx, vmm.Bounds{CPUSeconds: trialCPUSeconds}, d.program, append(args, d.machine.trial.options...)...)
	if err != nil {
		return fmt.Errorf("start trial run: %w", err)
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.Dir, cmd.Env = "/", []string{"LC_ALL=C"}
	cmd.ExtraFiles = []*os.File{firmware} // descriptor 3
	cmd.WaitDelay = time.Second
	err = vmm.Run(cmd)
	if cmd.ProcessState == nil {
		return fmt.Errorf("start trial run: %w", err)
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return d.machine.trial.verdict(cmd.ProcessState, said.String())
}

// inMemory returns a file that has no name, with the content.
func inMemory(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("firmware", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "firmware")
	if _, err := file.Write(content); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// verdict judges how QEMU ended. Waiting for it reports the status that the
// trial asks for as an error, so it is the state that counts.
func (t trial) verdict(state *os.ProcessState, said string) error {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
		return fmt.Errorf("a trial run used up %d s of CPU time on what takes a CPU 10 ms", trialCPUSeconds)
	}
	if state.ExitCode() == t.status {
		return nil
	}
	if first, _, _ := strings.Cut(strings.TrimSpace(said), "\n"); first != "" {
		return fmt.Errorf("a trial run ended with %s: %.200s", state, first)
	}
	return fmt.Errorf("a trial run ended with %s", state)
}

// accelerate decides between KVM and TCG. The reason is why KVM does not work
// here; it is nil with KVM.
func (d *Driver) accelerate(ctx context.Context) (accel Accel, reason, err error) {
	if reason = d.try(ctx, KVM); reason == nil {
		return KVM, nil, nil
	}
	if err := context.Cause(ctx); err != nil {
		return "", nil, err
	}
	if err := d.try(ctx, TCG); err != nil {
		return "", nil, errors.Join(fmt.Errorf("QEMU runs no guest with TCG: %w", err), fmt.Errorf("and none with KVM: %w", reason))
	}
	return TCG, reason, nil
}

// trialAMD64 is 64 KiB that end at 4 GiB, where the CPU begins 16 bytes before
// the end in real mode. It goes to 32-bit mode, in which no CPU needs KVM's help,
// and writes to the port of a device that ends QEMU with status value*2+1.
func trialAMD64() trial {
	const size = 64 << 10
	const value, port = 0x10, 0xf4
	firmware := bytes.Repeat([]byte{0xf4}, size) // hlt
	copy(firmware, []byte{
		0x00: 0xfa,                                     // cli
		0x01: 0x2e, 0x66, 0x0f, 0x01, 0x16, 0x38, 0x00, // lgdtl %cs:0x38
		0x08: 0x0f, 0x20, 0xc0, // mov %cr0, %eax
		0x0b: 0x0c, 0x01, // or $1, %al
		0x0d: 0x0f, 0x22, 0xc0, // mov %eax, %cr0
		0x10: 0x66, 0xea, 0x18, 0x00, 0xff, 0xff, 0x08, 0x00, // ljmpl $8, $0xffff0018
		0x18: 0xb9, 0x00, 0x2d, 0x31, 0x01, // mov $20000000, %ecx
		0x1d: 0x49,       // dec %ecx
		0x1e: 0x75, 0xfd, // jnz 0x1d
		0x20: 0xb0, value, // mov $value, %al
		0x22: 0xe6, port, // out %al, $port
		0x24: 0xf4,       // hlt
		0x25: 0xeb, 0xfd, // jmp 0x24
		// 0x28: GDT: none, and flat code. It is marked as accessed already, since the
		// CPU cannot write that into ROM.
		0x30: 0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xcf, 0x00,
		0x38: 0x0f, 0x00, 0x28, 0x00, 0xff, 0xff, // GDTR: 16 bytes at 0xffff0028
	})
	copy(firmware[size-16:], []byte{0xe9, 0x0d, 0x00}) // jmp 0x0000
	return trial{
		firmware: firmware,
		options:  []string{"-device", fmt.Sprintf("isa-debug-exit,iobase=%#x,iosize=1", port)},
		status:   value*2 + 1,
	}
}

// trialARM64 begins at the start of the board's flash, and ends QEMU by asking
// its firmware interface for SYSTEM_OFF (PSCI 1.1, section 5.9), with status 0.
func trialARM64() trial {
	firmware := make([]byte, 0, 64<<10)
	for _, instruction := range []uint32{
		0x5285a001, // movz w1, #0x2d00
		0x72a02621, // movk w1, #0x131, lsl #16
		0x71000421, // subs w1, w1, #1
		0x54ffffe1, // b.ne .-4
		0x52800100, // movz w0, #0x0008
		0x72b08000, // movk w0, #0x8400, lsl #16
		0xd4000002, // hvc #0
		0x14000000, // b .
	} {
		firmware = binary.LittleEndian.AppendUint32(firmware, instruction)
	}
	return trial{firmware: firmware[:cap(firmware)]}
}

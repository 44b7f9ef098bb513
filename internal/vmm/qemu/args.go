package qemu

import (
	"fmt"
	"strconv"
	"strings"

	"zwrm/internal/vmm"
)

// The names in a VM's folder, relative to it: a socket's address has at most 107
// bytes (unix(7)), which a folder's path may already have.
const controlSocket = "qmp.sock"

// sandbox has QEMU take from itself what it never needs once it runs: new
// privileges, new programs, obsolete calls, its own scheduling (seccomp(2)).
const sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

// softCacheMiB bounds the translated code of one guest under TCG. QEMU's own
// bound is an eighth of the host's memory for each.
const softCacheMiB = 32

// base returns the options that a guest and the trial have in common: nothing
// that QEMU or its configuration files would add by themselves, no display, and
// an end instead of a reset.
func (d *Driver) base(accel Accel) []string {
	args := append([]string{}, d.machine.options...)
	args = append(args, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
	if accel == KVM {
		args = append(args, "-accel", "kvm", "-cpu", "host")
	} else {
		args = append(args, "-accel", fmt.Sprintf("tcg,tb-size=%d", softCacheMiB), "-cpu", d.machine.softCPU)
	}
	if d.sandbox {
		args = append(args, "-sandbox", sandbox)
	}
	return args
}

// args returns QEMU's command line for a guest, without the program.
func (d *Driver) args(spec vmm.Spec) []string {
	args := append([]string{"-name", string(spec.Name)}, d.base(d.accel)...)
	args = append(args,
		"-smp", strconv.Itoa(spec.CPUs),
		"-m", fmt.Sprintf("%dM", spec.MemoryMiB),
		"-kernel", descriptor(kernelFD))
	if spec.Initrd != "" {
		args = append(args, "-initrd", descriptor(initrdFD))
	}
	args = append(args, "-append", d.kernelArgs(spec.Args),
		// Virtio 1.x; what QEMU calls legacy is the draft before it.
		"-global", "virtio-mmio.force-legacy=false",
		"-chardev", "file,id=console,path="+vmm.ConsoleLog+",append=on",
		"-serial", "chardev:console",
		"-netdev", "tap,id=net,fd="+strconv.Itoa(tapFD)+",vhost=off",
		"-device", netDevice(spec))
	if spec.Rootfs != "" {
		// snapshot=on: the image is shared by all its VMs and only read; writes go to
		// a file without a name, which the kernel removes with the process.
		args = append(args,
			"-drive", "if=none,id=root,format=raw,snapshot=on,file="+descriptor(rootfsFD),
			"-device", "virtio-blk-device,drive=root")
	}
	return append(args,
		"-device", "virtio-rng-device",
		"-qmp", "unix:"+controlSocket+",server=on,wait=off")
}

func netDevice(spec vmm.Spec) string {
	device := fmt.Sprintf("virtio-net-device,netdev=net,mac=%s", spec.GuestMAC)
	if spec.MTU != 0 {
		device += fmt.Sprintf(",host_mtu=%d", spec.MTU)
	}
	return device
}

// kernelArgs puts the machine's arguments before those of the VM, which win.
func (d *Driver) kernelArgs(args string) string {
	words := []string{d.machine.args}
	if d.tscKHz != 0 {
		words = append(words, fmt.Sprintf("tsc_early_khz=%d", d.tscKHz))
	}
	if args != "" {
		words = append(words, args)
	}
	return strings.Join(words, " ")
}

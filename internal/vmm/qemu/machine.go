package qemu

import "fmt"

// machine is what QEMU emulates for guests of one architecture.
type machine struct {
	program string   // QEMU's program
	debian  string   // the Debian package that has it
	options []string // the board
	softCPU string   // the CPU under TCG; under KVM it is the host's
	args    string   // kernel arguments that go with the board
	trial   trial
}

// machineFor returns the machine for guests of the host's own architecture.
//
// Guests end with panic=-1 when they panic: they ask for a reset, and QEMU, which
// has -no-reboot, ends. A guest that stays there dead would look alive from here.
func machineFor(arch string) (machine, error) {
	switch arch {
	case "amd64":
		return machine{
			program: "qemu-system-x86_64",
			debian:  "qemu-system-x86",
			// Virtio devices are found through ACPI: Debian's kernel does not take them
			// from its command line (CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES is not set).
			// With ACPI the board is "hardware-reduced": no kernel uses the old timer
			// (PIT) and interrupt controller (PIC) for anything but the speed of the
			// TSC, and that it gets from KVM or from our arguments. The clock (RTC)
			// tells the guest the date.
			options: []string{"-M", "microvm,acpi=on,pit=off,pic=off,rtc=on,x-option-roms=off"},
			softCPU: "max",
			// There is no keyboard controller to reset with, and without "reboot=t"
			// (triple fault) some kernels try others first, for seconds.
			args:  "console=ttyS0 reboot=t panic=-1",
			trial: trialAMD64(),
		}, nil
	case "arm64":
		return machine{
			program: "qemu-system-aarch64",
			debian:  "qemu-system-arm",
			options: []string{"-M", "virt,gic-version=max"},
			// The architecture's own pointer authentication takes TCG more time than
			// all the rest; this one does as well for a guest.
			softCPU: "max,pauth-impdef=on",
			args:    "console=ttyAMA0 panic=-1",
			trial:   trialARM64(),
		}, nil
	default:
		return machine{}, fmt.Errorf("QEMU driver knows amd64 and arm64, this host is %s", arch)
	}
}

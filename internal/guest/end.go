package guest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// End ends the machine, and with it the VMM. It returns only when the kernel
// refuses.
//
// A power off that the kernel has no means for halts the CPU for ever and leaves
// the VMM running, so the way is chosen before. What was tried, with
// qemu-system-x86_64 7.2 -accel tcg -no-reboot and Linux 6.1:
//
//	microvm, ACPI on   power off (ACPI S5)           QEMU ends
//	microvm, ACPI on   restart with reboot=t         QEMU ends (triple fault)
//	microvm, ACPI on   restart without reboot=       hangs in half of the runs
//	microvm, ACPI off  power off                     halts for ever
//	microvm, ACPI off  restart with reboot=t         QEMU ends
//
// A command line with reboot= says how a restart ends the machine, and VMMs
// without ACPI such as Firecracker ask for it (reboot=k), so then it is a
// restart. Otherwise it is a power off where firmware tables describe one: ACPI,
// or the device tree of an arm64 machine (PSCI).
func End(c Cmdline) error {
	unix.Sync()
	how := howToEnd(c, exists("/sys/firmware/acpi") || exists("/sys/firmware/devicetree"))
	if err := unix.Reboot(how); err != nil {
		return fmt.Errorf("end the machine: %w", err)
	}
	return nil
}

// howToEnd returns the command for reboot(2).
func howToEnd(c Cmdline, firmware bool) int {
	if c.Reboot || !firmware {
		return unix.LINUX_REBOOT_CMD_RESTART
	}
	return unix.LINUX_REBOOT_CMD_POWER_OFF
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

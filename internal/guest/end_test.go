package guest

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestHowToEnd(t *testing.T) {
	tests := []struct {
		name     string
		cmdline  string
		firmware bool
		want     int
	}{
		{"firmware tables", "quiet", true, unix.LINUX_REBOOT_CMD_POWER_OFF},
		{"restart asked for", "quiet reboot=t", true, unix.LINUX_REBOOT_CMD_RESTART},
		{"no firmware tables", "quiet", false, unix.LINUX_REBOOT_CMD_RESTART},
		{"neither tables nor a choice", "reboot=k", false, unix.LINUX_REBOOT_CMD_RESTART},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := howToEnd(ParseCmdline(test.cmdline), test.firmware); got != test.want {
				t.Errorf("got 0x%x, want 0x%x", got, test.want)
			}
		})
	}
}

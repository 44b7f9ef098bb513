package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"zwrm/internal/ipam"
	"zwrm/internal/vmm"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestCommandLine(t *testing.T) {
	whole := vmm.Spec{
		Name:      "web-0",
		CPUs:      2,
		MemoryMiB: 128,
		Kernel:    "/images/a,b/kernel",
		Initrd:    "/images/a,b/initrd",
		Rootfs:    "/images/a,b/rootfs",
		Args:      "root=/dev/vda ip=172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0:off",
		TAP:       "zvm0",
		GuestMAC:  ipam.MAC{0x02, 0x5a, 172, 16, 0, 2},
		MTU:       1460,
		Dir:       "/vms/web-0",
	}
	least := whole
	least.Initrd, least.Rootfs, least.Args, least.MTU = "", "", "", 0
	tests := []struct {
		name, arch string
		driver     Driver
		spec       vmm.Spec
	}{
		{"amd64-kvm", "amd64", Driver{accel: KVM, sandbox: true}, whole},
		{"amd64-tcg", "amd64", Driver{accel: TCG, sandbox: true, tscKHz: 2300000}, whole},
		{"amd64-least", "amd64", Driver{accel: KVM}, least},
		{"arm64-kvm", "arm64", Driver{accel: KVM, sandbox: true}, whole},
		{"arm64-tcg", "arm64", Driver{accel: TCG, sandbox: true}, whole},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			machine, err := machineFor(test.arch)
			if err != nil {
				t.Fatal(err)
			}
			test.driver.machine = machine
			got := layOut(append([]string{machine.program}, test.driver.args(test.spec)...))
			golden := filepath.Join("testdata", "args", test.name+".txt")
			if *update {
				if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("command line is\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// layOut writes each option with its value on a line.
func layOut(args []string) string {
	var text strings.Builder
	for i, arg := range args {
		switch {
		case i == 0:
		case strings.HasPrefix(arg, "-"):
			text.WriteString("\n  ")
		default:
			text.WriteString(" ")
		}
		text.WriteString(arg)
	}
	return text.String() + "\n"
}

func TestMachineForOtherArchitecture(t *testing.T) {
	if _, err := machineFor("riscv64"); err == nil || !strings.Contains(err.Error(), "riscv64") {
		t.Errorf("machineFor: %v, want an error that names the architecture", err)
	}
}

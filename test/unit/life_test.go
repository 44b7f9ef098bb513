package unit_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// TestLifeWithinTheUnit: with just the capabilities, system calls, address families and
// writable folders that the unit leaves, zwrmd attaches, deploys, restarts and destroys,
// is killed and finds its VMs again from other mounts, and stops clean.
func TestLifeWithinTheUnit(t *testing.T) {
	for _, firewall := range []string{"iptables", "nftables"} {
		t.Run(firewall, func(t *testing.T) {
			t.Parallel()
			h := zwrmtest.NewHost(t)
			d := h.NewDaemon(t, zwrmtest.Settings{"network.bridge.enabled": "true", "network.firewall": `"` + firewall + `"`})
			d.Prepare = confined(t, h.Dir)
			d.Start(t)
			t.Cleanup(func() { endVMMs(filepath.Dir(d.Database)) })
			isConfined(t, d)
			d.Must(t, "image", "add", "small", "--kernel", zwrmtest.Image(t, "kernel"), "--initrd", zwrmtest.Image(t, "initrd"))
			d.Guest(t, "mine", "web")
			d.Must(t, "deploy", "web", "--image", "small", "--wait", "--timeout", "3m")
			vm := named(t, d, "web-0")
			if got := seen(t, vm.PID, "CapBnd") + " " + seen(t, vm.PID, "CapEff") + " " + seen(t, vm.PID, "NoNewPrivs"); got != bounding()+" 0000000000000000 1" {
				t.Errorf("the VMM has %s", got)
			}
			d.Must(t, "network", "check")
			d.Must(t, "network", "explain", "web-0", "mine", "--trace")
			d.Must(t, "restart", "web-0")
			again := named(t, d, "web-0")
			d.Kill()
			d.Start(t)
			if now := named(t, d, "web-0"); now != again {
				t.Errorf("the VM is %v and was %v", now, again)
			}
			d.Must(t, "network", "check")
			d.Must(t, "logs", "web-0")
			d.Must(t, "destroy", "web")
			if left := d.VMs(t); len(left) != 0 {
				t.Errorf("VMs are left: %v", left)
			}
			// One that nobody has waited for has ended, too: its parent was killed.
			if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", again.PID)); err == nil && !strings.Contains(string(stat), ") Z ") {
				t.Errorf("process %d is left: %s", again.PID, stat)
			}
			d.Stop(t)
			for _, word := range []string{"read-only file system", "operation not permitted", "permission denied"} {
				if strings.Contains(strings.ToLower(withoutKVM(d.Log())), word) {
					t.Errorf("zwrmd was refused something:\n%s", d.Log())
				}
			}
		})
	}
}

// withoutKVM is the log without what it says of KVM, which tests do not have.
func withoutKVM(log string) string {
	var out strings.Builder
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "KVM") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// bounding is the bounding set as the kernel writes it.
func bounding() string {
	u, err := readUnit(unitFile)
	if err != nil {
		return err.Error()
	}
	set := uint64(0)
	for _, name := range u["CapabilityBoundingSet"] {
		set |= 1 << capabilityNumbers()[name]
	}
	return fmt.Sprintf("%016x", set)
}

// isConfined checks that what follows tests something.
func isConfined(t *testing.T, d *zwrmtest.Daemon) {
	t.Helper()
	for field, want := range map[string]string{"CapBnd": bounding(), "CapEff": bounding(), "NoNewPrivs": "1", "Seccomp": "2"} {
		if got := seen(t, d.PID(), field); got != want {
			t.Errorf("zwrmd has %s %s, want %s", field, got, want)
		}
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", d.PID()))
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if fields[4] == "/" && !strings.HasPrefix(fields[5], "ro") {
			t.Errorf("the root folder can be written to: %s", line)
		}
	}
}

func named(t *testing.T, d *zwrmtest.Daemon, name string) wire.VM {
	t.Helper()
	for _, vm := range d.VMs(t) {
		if vm.Name == name {
			return vm
		}
	}
	t.Fatalf("there is no VM %q", name)
	return wire.VM{}
}

// endVMMs ends what a failed test left, which outlives zwrmd.
func endVMMs(state string) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		var pid int
		if dir, err := os.Readlink(link); err != nil || !strings.HasPrefix(dir, state) {
			continue
		}
		if _, err := fmt.Sscanf(link, "/proc/%d/cwd", &pid); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

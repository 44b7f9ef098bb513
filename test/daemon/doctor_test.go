package daemon_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// examine returns what zwrm doctor finds, but for KVM, which tests have not, and its
// exit status.
func examine(t *testing.T, d *zwrmtest.Daemon) ([]wire.Finding, int) {
	t.Helper()
	r := d.Zwrm(t, "doctor", "-o", "json")
	var all []wire.Finding
	if err := json.Unmarshal([]byte(r.Stdout), &all); err != nil {
		t.Fatalf("exit status %d, %s%s: %v", r.Status, r.Stdout, r.Stderr, err)
	}
	return slices.DeleteFunc(all, func(f wire.Finding) bool { return f.Subject == "KVM" }), r.Status
}

// TestDoctor: the doctor finds nothing on a host that is well, names what somebody
// broke, with exit status 1 for what does not work, and finds nothing again when it
// is mended.
func TestDoctor(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	h.Set(t, "net/ipv4/conf/all/rp_filter", "0") // else it is as on the machine
	h.Foreign(t)
	d := h.Start(t, zwrmtest.Settings{"network.subnet": `"172.16.0.0/26"`})
	d.Attach(t, "one", "web")
	if all, status := examine(t, d); len(all) > 0 || status != 0 {
		t.Fatalf("on a host that is well: exit status %d, %+v", status, all)
	}
	tests := []struct {
		name     string
		spoil    string
		severity string
		says     []string
		mend     string
	}{
		{"check of sources", "sysctl -qw net.ipv4.conf.all.rp_filter=2", "warning",
			[]string{"net.ipv4.conf.all.rp_filter = 2"}, "sysctl -qw net.ipv4.conf.all.rp_filter=0"},
		{"overlap", "ip route add 172.16.0.32/28 via 192.0.2.2", "problem",
			[]string{`network.subnet = "172.16.0.0/26"`, `overlaps the route to 172.16.0.32/28 by "eth0"`}, "ip route del 172.16.0.32/28"},
		{"foreign TAP", "ip tuntap add zvmnet mode tap", "problem",
			[]string{`interface "zvmnet"`, "is not ours"}, "ip link del zvmnet"},
		{"default route", "ip link add wan0 type veth peer name wan1\nip link set wan0 up\nip route add 203.0.113.0/24 dev wan0\nip route replace default dev wan0", "warning",
			[]string{"default route", `is by "wan0"`}, "ip link del wan0\nip route replace default via 192.0.2.2"},
		{"uplink", "ip link set eth0 down", "problem", []string{`interface "eth0"`, "is down"}, "ip link set eth0 up\nip route replace default via 192.0.2.2"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			shell(t, h, test.spoil)
			spoilt := h.Dump(t)
			all, status := examine(t, d)
			named := slices.ContainsFunc(all, func(f wire.Finding) bool {
				text := f.Subject + " " + f.What + " " + f.Mend
				return f.Severity == test.severity && !slices.ContainsFunc(test.says, func(word string) bool { return !strings.Contains(text, word) })
			})
			if want := map[string]int{"problem": 1, "warning": 0}[test.severity]; !named || status != want {
				t.Errorf("exit status %d, want %d; no %s says %q: %+v", status, want, test.severity, test.says, all)
			}
			h.Same(t, spoilt)
			shell(t, h, test.mend)
			if all, status := examine(t, d); len(all) > 0 || status != 0 {
				t.Errorf("after it is mended: exit status %d, %+v", status, all)
			}
		})
	}
}

// TestDoctorNeighbourTable: a subnet for more VMs than the kernel has room for is a
// warning before there are so many.
func TestDoctorNeighbourTable(t *testing.T) {
	t.Parallel()
	d := zwrmtest.NewHost(t).Start(t, zwrmtest.Settings{"network.subnet": `"10.0.0.0/8"`, "network.bridge.subnet": `"172.16.0.0/16"`})
	r := d.Zwrm(t, "doctor")
	contains(t, "doctor", r.Stdout, "warning: net.ipv4.neigh.default.gc_thresh3 = ", "the subnet holds 4194304 VMs", "mend: raise net.ipv4.neigh.default.gc_thresh1, 2 and 3")
	if r.Status != 0 || r.Stderr != "" {
		t.Errorf("a warning: exit status %d, stderr %q", r.Status, r.Stderr)
	}
}

// TestDoctorMissingPrograms: programs that are removed while zwrmd runs are named, and
// the doctor goes on without them.
func TestDoctorMissingPrograms(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	dir := zwrmtest.TempDir(t)
	wrap(t, dir, `exec "$real" "$@"`)
	for _, name := range []string{"qemu-system-x86_64", "qemu-system-aarch64"} {
		if path, err := exec.LookPath(name); err == nil {
			must(t, os.Symlink(path, filepath.Join(dir, name)))
		}
	}
	d := h.NewDaemon(t, nil)
	d.Prepare = func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "PATH="+dir+":"+os.Getenv("PATH")) }
	d.Start(t)
	must(t, os.RemoveAll(dir))
	h.Set(t, "net/ipv4/conf/all/rp_filter", "2")
	r := d.Zwrm(t, "doctor")
	contains(t, "doctor", r.Stdout,
		"problem: VMM\n  cannot be started, so neither can VMs", "qemu-system-",
		"warning: doctor\n  could not look everywhere: ", "iptables",
		"warning: net.ipv4.conf.all.rp_filter = 2\n")
	if r.Status != 1 {
		t.Errorf("exit status %d", r.Status)
	}
}

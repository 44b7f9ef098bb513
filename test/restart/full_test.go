package restart_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"zwrm/internal/config"
	"zwrm/internal/effect"
	"zwrm/internal/wire"
	"zwrm/test/crash/order"
	"zwrm/test/zwrmtest"
)

// What zwrmd may take with as many VMs as the default subnet holds. Those that run have
// VMMs of somebody else: each of ours takes a descriptor and two goroutines more.
const (
	maxResident    = 64 << 20 // bytes
	maxGoroutines  = 64
	maxDescriptors = 64
	idleWindow     = 40 * time.Second
	// maxIdle is a part of a processor. It is to be 0.5 % over minutes, which the
	// benchmark tells of; here a single look at everything may fall into the time.
	maxIdle = 0.015
)

// frugal asks a zwrmd with all its VMs for what there is to ask, and reports an error
// when it gets too large by that.
func frugal(t *testing.T, d *zwrmtest.Daemon) {
	t.Helper()
	for _, ask := range []struct {
		what string
		ask  func()
	}{
		{"the start", func() {}},
		{"zwrm ps -o json", func() {
			var vms []wire.VM
			must(t, json.Unmarshal([]byte(d.Must(t, "ps", "-o", "json")), &vms))
			if len(vms) != present {
				t.Errorf("zwrm ps lists %d VMs, want %d", len(vms), present)
			}
		}},
		{"zwrm ps", func() { d.Must(t, "ps") }},
		{"zwrm apps", func() { d.Must(t, "apps") }},
		{"zwrm network check", func() { d.Must(t, "network", "check") }},
		{"zwrm network status", func() { d.Must(t, "network", "status") }},
		{"zwrm network repair", func() { d.Must(t, "network", "repair") }},
		{"zwrm doctor", func() { d.Zwrm(t, "doctor") }},
		{"zwrm events", func() { d.Must(t, "events") }},
		{"/metrics", func() { d.Metrics(t) }},
	} {
		ask.ask()
		if most := peak(t, d); most > maxResident {
			t.Errorf("zwrmd takes up to %d KiB of memory by %s, more than %d", most>>10, ask.what, maxResident>>10)
		} else {
			t.Logf("up to %.1f MiB by %s", float64(most)/(1<<20), ask.what)
		}
	}
	metrics := d.Metrics(t)
	if n := metric(t, metrics, "go_goroutines"); n > maxGoroutines {
		t.Errorf("zwrmd has %d goroutines", n)
	}
	if n := metric(t, metrics, "process_open_fds"); n > maxDescriptors {
		t.Errorf("zwrmd has %d descriptors", n)
	}
}

// idle reports an error when zwrmd spends more of a processor than it should while
// nothing happens. What it runs, such as iptables-save, counts.
func idle(t *testing.T, d *zwrmtest.Daemon) {
	t.Helper()
	before, began := spent(t, d), time.Now()
	time.Sleep(idleWindow)
	part := float64(spent(t, d)-before) / float64(time.Since(began))
	t.Logf("idle: %.2f %% of a processor", 100*part)
	if part > maxIdle {
		t.Errorf("zwrmd spends %.2f %% of a processor while nothing happens", 100*part)
	}
}

// peak returns the most resident memory that zwrmd had since its start, in bytes.
func peak(t *testing.T, d *zwrmtest.Daemon) int {
	t.Helper()
	status, err := os.Open(fmt.Sprintf("/proc/%d/status", d.PID()))
	must(t, err)
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			must(t, err)
			return kib << 10
		}
	}
	t.Fatal("the kernel does not tell how much memory zwrmd has")
	return 0
}

// spent returns the time that a zwrmd and what it ran have spent, in the kernel too.
func spent(t *testing.T, d *zwrmtest.Daemon) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.PID()))
	must(t, err)
	_, behind, _ := strings.Cut(string(stat), ") ") // the name may have spaces
	fields := strings.Fields(behind)
	const utime, cstime, tick = 14 - 3, 17 - 3, 10 * time.Millisecond // proc_pid_stat(5); USER_HZ is 100
	var sum time.Duration
	for _, field := range fields[utime : cstime+1] {
		n, err := strconv.Atoi(field)
		must(t, err)
		sum += time.Duration(n) * tick
	}
	return sum
}

func metric(t *testing.T, metrics, name string) int {
	t.Helper()
	for line := range strings.Lines(metrics) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			must(t, err)
			return int(n)
		}
	}
	t.Fatalf("the metrics lack %q", name)
	return 0
}

// sideEffects starts a zwrmd that notes its side effects, waits until it is ready and
// has kept house, and returns how often it had which.
func sideEffects(t *testing.T, d *zwrmtest.Daemon) map[effect.Op]int {
	t.Helper()
	dir := t.TempDir()
	program, points := filepath.Join(dir, "zwrmd"), filepath.Join(dir, "points")
	build := exec.Command("go", "build", "-o", program, "../crash/zwrmd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the zwrmd that notes its side effects: %v\n%s", err, out)
	}
	d.Prepare = func(cmd *exec.Cmd) {
		cmd.Path, cmd.Args = program, []string{program, d.Config}
		cmd.Env = append(cmd.Env, order.PointsVariable+"="+points, order.SocketVariable+"="+filepath.Join(dir, "orders"))
	}
	defer func() { d.Prepare = nil }()
	d.Start(t)
	time.Sleep(housekeeping)
	d.Kill()
	had, err := order.Points(points)
	must(t, err)
	counts := map[effect.Op]int{}
	for _, p := range had {
		counts[p.Op]++
	}
	return counts
}

// housekeeping is somewhat more than the time between two rounds of it.
const housekeeping = 6 * time.Second

// unavoidable returns the side effects that every start has, be there something to
// change or not: folders and the lock that it sees to, its socket, and how the
// dataplane finds out what the kernel can do, in a chain or table that nothing leads to.
func unavoidable(dataplane config.Dataplane) map[effect.Op]int {
	had := map[effect.Op]int{
		"store.make-folder": 1, "store.make-lock-file": 1, "store.write-pid": 1, "fleet.make-root-folder": 1,
		"daemon.make-socket-folder": 1, "daemon.remove-stale-socket": 1, "daemon.make-socket": 1, "daemon.set-socket-mode": 1,
	}
	switch dataplane {
	case config.Iptables:
		had["iptables.restore"], had["ip6tables.restore"] = 2, 2
	case config.Nftables: // whose table a new process has to take over
		had["nftables.write"] = 1
	}
	return had
}

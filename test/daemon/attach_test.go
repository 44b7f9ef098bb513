package daemon_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// TestParallelAttach: 50 attachments of 10 apps made, removed and made again at the
// same time. No slot is given twice, and nothing leaks.
func TestParallelAttach(t *testing.T) {
	t.Parallel()
	const many = 50
	h := zwrmtest.NewHost(t)
	h.Foreign(t)
	h.Set(t, "net/ipv4/ip_forward", "1")
	clean := h.Dump(t)
	d := h.Start(t, private())
	empty := h.Dump(t)
	client := d.Client(t)
	attach := func(i int) error {
		_, err := client.Attach(t.Context(), wire.Attach{Name: fmt.Sprintf("vm-%d", i), App: fmt.Sprintf("app-%d", i%10)})
		return err
	}
	detach := func(i int) error { return client.Detach(t.Context(), fmt.Sprintf("vm-%d", i)) }
	atOnce(t, many, attach)
	atOnce(t, many, func(i int) error {
		if i%2 == 0 {
			return nil
		}
		if err := detach(i); err != nil {
			return err
		}
		return attach(i)
	})
	slots := map[uint32]string{}
	for _, vm := range d.VMs(t) {
		if other, twice := slots[vm.Slot]; twice {
			t.Errorf("%s and %s both have slot %d", vm.Name, other, vm.Slot)
		}
		slots[vm.Slot] = vm.Name
	}
	if len(slots) != many || len(taps(t, h)) != many {
		t.Errorf("%d slots and %d TAPs, want %d", len(slots), len(taps(t, h)), many)
	}
	if got := strings.Count(h.Rules(t), "zwrm: app app-"); got != 10 {
		t.Errorf("%d rules of apps, want 10:\n%s", got, h.Rules(t))
	}
	d.Must(t, "network", "check")
	atOnce(t, many, detach)
	d.Settle(t)
	h.Same(t, empty)
	d.Must(t, "network", "check")
	contains(t, "status", d.Must(t, "network", "status"), "used:                0 VMs")
	if got := d.Must(t, "apps"); strings.Contains(got, "app-") {
		t.Errorf("apps are left:\n%s", got)
	}
	d.Stop(t)
	h.Same(t, clean)
}

// atOnce calls f for 0 to n-1 at the same time.
func atOnce(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	var work sync.WaitGroup
	for i := range n {
		work.Go(func() {
			if err := f(i); err != nil {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	work.Wait()
}

// TestCostPerVM: however many VMs an app has, the rules are those of an app with two,
// and no process is started for a VM's network.
func TestCostPerVM(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	wrap(t, dir, fmt.Sprintf("echo \"${0##*/}\" >>%s\nexec \"$real\" \"$@\"", log))
	d := h.NewDaemon(t, private())
	d.Prepare = func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "PATH="+dir+":"+os.Getenv("PATH")) }
	d.Start(t)
	if len(started(t, log)) == 0 {
		t.Fatal("no start of a program is counted")
	}
	client := d.Client(t)
	attach := func(name string) {
		t.Helper()
		_, err := client.Attach(context.Background(), wire.Attach{Name: name, App: "web"})
		must(t, err)
	}
	attach("one")
	attach("two")
	before, rules := started(t, log), h.Rules(t)
	for i := range 20 {
		attach(fmt.Sprintf("more-%d", i))
	}
	after := started(t, log)
	if got := h.Rules(t); got != rules {
		t.Errorf("20 VMs more changed the rules:\n%swhere they were\n%s", got, rules)
	}
	for i := range 20 {
		must(t, client.Detach(context.Background(), fmt.Sprintf("more-%d", i)))
	}
	end := started(t, log)
	// The comparison of every 30 s may come in between; it reads with the two "-save".
	for what, n := range map[string]int{"attach": len(after) - len(before), "detach": len(end) - len(after)} {
		if n > 4 {
			t.Errorf("20 times %s started %d programs: %v", what, n, end[len(before):])
		}
	}
	for _, program := range end[len(before):] {
		if !strings.HasSuffix(program, "-save") {
			t.Errorf("%s was started for a VM", program)
		}
	}
}

// started returns the names of the programs that were started, in order.
func started(t *testing.T, log string) []string {
	t.Helper()
	text, err := os.ReadFile(log)
	must(t, err)
	return strings.Fields(string(text))
}

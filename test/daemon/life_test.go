package daemon_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"zwrm/internal/host"
	"zwrm/internal/host/nstest"
	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// outsider is a service on the internet.
func outsider() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(zwrmtest.OutsideAddress), 80)
}

// reaches reports an error unless the namespace reaches the service outside, or does
// not, as wanted.
func reaches(t *testing.T, when string, ns *nstest.Namespace, want bool) {
	t.Helper()
	within := 400 * time.Millisecond
	if want {
		within = 10 * time.Second
	}
	seen, err := zwrmtest.Ask(t, ns, "tcp", outsider(), within)
	if (err == nil) != want {
		t.Errorf("%s: guest reaches the internet: %t, want %t (%v)", when, err == nil, want, err)
	}
	if want && err == nil && seen.String() != zwrmtest.HostAddress {
		t.Errorf("%s: the internet sees %s, want %s", when, seen, zwrmtest.HostAddress)
	}
}

// TestRulesAtStart: zwrmd makes masquerade and FORWARD rules when it starts, before
// there is any VM, switches forwarding on, and makes the same again when a reboot
// has lost them. No saved rules are needed.
func TestRulesAtStart(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	h.Foreign(t)
	zwrmtest.Serve(t, h.Outside, "tcp/80")
	d := h.Start(t, private())
	contains(t, "rules", h.Rules(t),
		`-A POSTROUTING -m comment --comment "zwrm: hook" -j ZWRM-NAT`,
		`-A ZWRM-NAT -s 172.16.0.0/16 -o eth0 -m comment --comment "zwrm: internet" -j MASQUERADE`,
		`-A FORWARD -m comment --comment "zwrm: hook" -j ZWRM-FORWARD`,
		`-A ZWRM-PRIVATE -m comment --comment "zwrm: other-app" -j DROP`)
	if got := h.Sysctl(t, "net/ipv4/ip_forward"); got != "1" {
		t.Errorf("ip_forward is %s", got)
	}
	vm := d.Attach(t, "one", "web")
	d.Attach(t, "two", "web")
	before := h.Dump(t)
	d.Kill()
	h.Reboot(t)
	h.Foreign(t) // its owner makes it again
	d.Start(t)
	h.Same(t, before)
	reaches(t, "after a reboot", h.Guest(t, vm).Namespace, true)
}

// taps returns the names of the TAPs of ours.
func taps(t *testing.T, h *zwrmtest.Host) []string {
	t.Helper()
	var names []string
	for _, match := range regexp.MustCompile(`(?m)^\d+: (zvm\d+):`).FindAllStringSubmatch(h.Run(t, "ip", "-o", "link"), -1) {
		names = append(names, match[1])
	}
	return names
}

// TestStopCleans: a stop removes NAT rules and chains, so that all rules are as they
// were before the start, byte for byte. TAPs are down and belong to no app; the next
// start opens them, without the guest having to do anything.
func TestStopCleans(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	h.Foreign(t)
	zwrmtest.Serve(t, h.Outside, "tcp/80")
	before := h.Rules(t)
	d := h.Start(t, private())
	guest := d.Guest(t, "one", "web")
	d.Attach(t, "two", "web")
	running := h.Dump(t)
	reaches(t, "before the stop", guest.Namespace, true)
	d.Stop(t)
	if after := h.Rules(t); after != before {
		t.Errorf("rules after the stop:\n%swhere they were before the start:\n%s", after, before)
	}
	for _, tap := range taps(t, h) {
		link := h.Run(t, "ip", "link", "show", tap)
		if strings.Contains(link, ",UP") || !strings.Contains(link, "group 1509949440") { // 0x5a000000
			t.Errorf("after the stop the TAP is up, or in a group: %s", link)
		}
	}
	if links := h.Run(t, "ip", "link"); strings.Contains(links, "zwrmd0") {
		t.Errorf("zwrmd0 is still there:\n%s", links)
	}
	reaches(t, "after the stop", guest.Namespace, false)
	d.Start(t)
	h.Same(t, running)
	reaches(t, "after the next start", guest.Namespace, true)
}

// TestStopLeavesNothing: without VMs, a host that forwarded before is after the stop
// exactly what it was before the start.
func TestStopLeavesNothing(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	h.Foreign(t)
	h.Set(t, "net/ipv4/ip_forward", "1")
	before := h.Dump(t)
	d := h.Start(t, private())
	d.Attach(t, "one", "web")
	d.Attach(t, "two", "web")
	d.Must(t, "destroy", "web")
	d.Stop(t)
	h.Same(t, before)
}

// TestKeep: with on_shutdown = "keep" a stop changes nothing, the guests go on, and
// neither does the next start.
func TestKeep(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	zwrmtest.Serve(t, h.Outside, "tcp/80")
	d := h.Start(t, zwrmtest.Settings{"network.bridge.enabled": "true", "network.on_shutdown": `"keep"`})
	guest := d.Guest(t, "one", "web")
	d.Attach(t, "two", "web")
	before := h.Dump(t)
	d.Stop(t)
	h.Same(t, before)
	reaches(t, "while no zwrmd runs", guest.Namespace, true)
	d.Start(t)
	h.Same(t, before)
	contains(t, "log", d.Log(), "changes=0")
}

// TestKilled: kill -9 leaves everything as it is, guests go on, and the next start
// finds nothing to do.
func TestKilled(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	zwrmtest.Serve(t, h.Outside, "tcp/80")
	d := h.Start(t, private())
	guest := d.Guest(t, "one", "web")
	d.Attach(t, "two", "web")
	before := h.Dump(t)
	d.Kill()
	h.Same(t, before)
	reaches(t, "after the kill", guest.Namespace, true)
	d.Start(t)
	h.Same(t, before)
	contains(t, "log", d.Log(), "changes=0")
}

// TestKilledAtWork: whatever zwrmd is doing when it is killed, after the next start
// every attachment that was promised is there, and the kernel has exactly what the
// rows say.
func TestKilledAtWork(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, private())
	promised := map[string]wire.VM{}
	for round := range 4 {
		attached := attachUntilKilled(t, d, round)
		d.Start(t)
		for _, vm := range attached {
			promised[vm.Name] = vm
		}
		d.Must(t, "network", "check") // exit status 4 if it differs
		rows := d.VMs(t)
		var names []string
		for _, row := range rows {
			names = append(names, row.TAP)
			if vm, ok := promised[row.Name]; ok && vm.Slot != row.Slot {
				t.Errorf("%s was promised slot %d and has %d", row.Name, vm.Slot, row.Slot)
			}
			delete(promised, row.Name)
		}
		for name := range promised {
			t.Errorf("%s was promised and is not there", name)
		}
		found := taps(t, h)
		slices.Sort(names)
		slices.Sort(found)
		if !slices.Equal(names, found) {
			t.Errorf("TAPs are %v, rows say %v", found, names)
		}
		for _, row := range rows {
			promised[row.Name] = row
		}
	}
}

// attachUntilKilled attaches from several sides, kills zwrmd in the middle of it, and
// returns what zwrmd had answered until then.
func attachUntilKilled(t *testing.T, d *zwrmtest.Daemon, round int) []wire.VM {
	t.Helper()
	client := d.Client(t)
	answers := make(chan wire.VM)
	var work sync.WaitGroup
	for worker := range 4 {
		work.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("r%d-w%d-%d", round, worker, i)
				vm, err := client.Attach(context.Background(), wire.Attach{Name: name, App: fmt.Sprintf("app%d", i%3)})
				if err != nil {
					return // killed
				}
				answers <- vm
			}
		})
	}
	go func() { work.Wait(); close(answers) }()
	var attached []wire.VM
	var kill sync.WaitGroup
	for vm := range answers {
		if attached = append(attached, vm); len(attached) == 10+round {
			kill.Go(d.Kill)
		}
	}
	kill.Wait()
	return attached
}

// TestAttachmentsSurvive: attachments keep their slots and addresses over stop and
// start, and over a kill.
func TestAttachmentsSurvive(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, private())
	for i := range 5 {
		d.Attach(t, fmt.Sprintf("vm-%d", i), "web")
	}
	d.Must(t, "detach", "vm-1") // a gap, and a slot in quarantine
	want := d.VMs(t)
	d.Restart(t)
	same := func(when string) {
		t.Helper()
		got := d.VMs(t)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s:\n%v\nwant\n%v", when, got, want)
		}
	}
	same("after a restart")
	d.Kill()
	d.Start(t)
	same("after a kill")
	if got := d.Attach(t, "fresh", "web").Slot; got == 1 {
		t.Error("a slot that was freed just now was given out again: its quarantine did not survive")
	}
}

// TestNotify: systemd is told READY when the rules stand and the API answers, and
// STOPPING when the stop begins.
func TestNotify(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	path := filepath.Join(h.Dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer socket.Close()
	next := func() string {
		t.Helper()
		must(t, socket.SetReadDeadline(time.Now().Add(time.Minute)))
		buf := make([]byte, 256)
		n, err := socket.Read(buf)
		must(t, err)
		return string(buf[:n])
	}
	d := h.NewDaemon(t, private())
	d.Prepare = func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path) }
	d.Start(t)
	if got := next(); got != "READY=1" {
		t.Errorf("systemd is told %q", got)
	}
	d.Stop(t)
	if got := next(); got != "STOPPING=1" {
		t.Errorf("systemd is told %q", got)
	}
}

// TestTAPSettings: every TAP has the settings that make it a TAP of ours.
func TestTAPSettings(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	for _, family := range []string{"ipv4", "ipv6"} {
		h.Set(t, "net/"+family+"/conf/default/accept_redirects", "1")
	}
	h.Set(t, "net/ipv4/conf/default/rp_filter", "0")
	d := h.Start(t, private())
	for _, name := range []string{"one", "two"} {
		tap := d.Attach(t, name, "web").TAP
		for _, setting := range host.TAPSettings() {
			if got := h.Sysctl(t, setting.Sysctl(tap)); got != fmt.Sprint(setting.Value) {
				t.Errorf("%s = %s, want %d", setting.Sysctl(tap), got, setting.Value)
			}
		}
	}
}

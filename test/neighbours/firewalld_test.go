package neighbours_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	zone "zwrm/internal/firewall/firewalld"
	"zwrm/internal/host/nstest"
	"zwrm/internal/ipam"
	"zwrm/test/zwrmtest"
)

// unanswered is how long one waits for what firewalld rejects.
const unanswered = 300 * time.Millisecond

// crowd is a host with firewalld, two VMs behind TAPs, a container whose interface is
// in a zone that accepts, and a forger, whose interface is in none.
type crowd struct {
	*firewalld
	vms               [2]*nstest.Guest
	container, forger *nstest.Namespace
	outside           *zwrmtest.Service
}

// Addresses of the crowd. Gateways are one less.
const (
	oneVM     = "172.16.0.2"
	otherVM   = "172.16.0.6"
	container = "10.77.1.2"
	forger    = "10.77.2.2"
)

func newCrowd(t *testing.T, settings ...string) *crowd {
	t.Helper()
	h := zwrmtest.NewHost(t)
	h.Set(t, "net/ipv4/ip_forward", "1")
	c := &crowd{container: nstest.New(t), forger: nstest.New(t)}
	for i, text := range []string{oneVM, otherVM} {
		address, tap := netip.MustParseAddr(text), fmt.Sprintf("zvm%d", i)
		h.Run(t, "ip", "tuntap", "add", tap, "mode", "tap")
		h.Address(t, tap, netip.PrefixFrom(address.Prev(), 30))
		h.Up(t, tap)
		h.Do(t, func() {
			c.vms[i] = nstest.NewGuest(t, tap, netip.PrefixFrom(address, 30), address.Prev(), ipam.MAC{2, 0x5a, 0, 0, 0, byte(i)})
		})
		zwrmtest.Serve(t, c.vms[i].Namespace, "tcp/80", "udp/53")
	}
	for name, ns := range map[string]*nstest.Namespace{container: c.container, forger: c.forger} {
		address, link := netip.MustParseAddr(name), "v"+strings.ReplaceAll(name, ".", "")
		nstest.Veth(t, h.Namespace, link, ns, "eth0")
		h.Address(t, link, netip.PrefixFrom(address.Prev(), 24))
		ns.Address(t, "eth0", netip.PrefixFrom(address, 24))
		ns.Route(t, netip.MustParsePrefix("0.0.0.0/0"), address.Prev())
		h.Set(t, "net/ipv4/conf/"+link+"/rp_filter", "0")
	}
	h.Set(t, "net/ipv4/conf/all/rp_filter", "0")
	c.forger.Address(t, "lo", netip.MustParsePrefix(oneVM+"/32"))
	zwrmtest.Serve(t, h.Namespace, "tcp/80", "udp/53")
	c.outside = zwrmtest.Serve(t, h.Outside, "tcp/80", "udp/53")
	c.firewalld = startFirewalld(t, h, settings...)
	c.cmd(t, "--permanent", "--zone=trusted", "--add-interface=v107712")
	c.cmd(t, "--permanent", "--zone=public", "--add-masquerade")
	c.reload(t)
	return c
}

// flows returns who gets an answer from whom, and by which address the asker is known.
func (c *crowd) flows(t *testing.T) string {
	t.Helper()
	vm, h := c.vms[0].Namespace, c.host
	var out strings.Builder
	for _, flow := range []struct {
		name string
		from *nstest.Namespace
		to   string
	}{
		{"VM to internet", vm, zwrmtest.OutsideAddress},
		{"VM to VM", vm, otherVM},
		{"VM to host", vm, "172.16.0.1"},
		{"host to VM", h.Namespace, oneVM},
		{"internet to VM", h.Outside, oneVM},
		{"internet to host", h.Outside, zwrmtest.HostAddress},
		{"container to internet", c.container, zwrmtest.OutsideAddress},
		{"neighbour to host", c.forger, "10.77.2.1"},
	} {
		fmt.Fprintf(&out, "%s:", flow.name)
		for _, ask := range []struct {
			network string
			port    uint16
		}{{"tcp", 80}, {"udp", 53}} {
			seen, err := zwrmtest.Ask(t, flow.from, ask.network, netip.AddrPortFrom(netip.MustParseAddr(flow.to), ask.port), unanswered)
			result := " " + seen.String()
			if err != nil {
				result = " no"
			}
			if !strings.HasSuffix(out.String(), result) {
				out.WriteString(result)
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}

// expect tries the flows until they are as wanted. An answer that comes late, on a
// machine that is busy, looks like one that was dropped.
func (c *crowd) expect(t *testing.T, when, want string) {
	t.Helper()
	var got string
	for range 10 {
		if got = c.flows(t); got == want {
			return
		}
	}
	t.Errorf("%s\n%swant\n%s", when, got, want)
}

// open opens a Zone on the bus.
func (f *firewalld) open(t *testing.T) *zone.Zone {
	t.Helper()
	z, err := zone.Open(t.Context(), zone.Address(f.bus), nil)
	must(t, err)
	t.Cleanup(func() { z.Close() })
	return z
}

// diff returns the differences as text.
func diff(t *testing.T, z *zone.Zone) string {
	t.Helper()
	found, err := z.Diff(t.Context())
	must(t, err)
	var out strings.Builder
	for _, d := range found {
		fmt.Fprintf(&out, "%s: wanted %s, found %s\n", d.Object, d.Wanted, d.Found)
	}
	return out.String()
}

const missing = "firewalld interface zvm+: wanted zone trusted, found no zone\n"

// await waits until Changed tells.
func await(t *testing.T, z *zone.Zone, what string) {
	t.Helper()
	select {
	case <-z.Changed():
	case <-time.After(arriveWithin):
		t.Fatalf("%s: Changed tells nothing", what)
	}
}

// files returns the files of the permanent configuration.
func (f *firewalld) files(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	dir := os.DirFS(f.config)
	must(t, fs.WalkDir(dir, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(dir, path)
		fmt.Fprintf(&out, "== %s\n%s", path, text)
		return err
	}))
	return out.String()
}

// What passes without the binding and with it. The host's address is what a
// masqueraded source looks like.
const (
	cutOff = `VM to internet: no
VM to VM: no
VM to host: no
host to VM: 172.16.0.1
internet to VM: no
internet to host: no
container to internet: 192.0.2.1
neighbour to host: no
`
	letThrough = `VM to internet: 192.0.2.1
VM to VM: 172.16.0.2
VM to host: 172.16.0.2
host to VM: 172.16.0.1
internet to VM: no
internet to host: no
container to internet: 192.0.2.1
neighbour to host: no
`
)

// TestFirewalldZone: firewalld cuts VMs off, whatever others accept; with the binding
// they pass, and nobody else does; our own rules decide then. Taken away, all is as it
// was.
func TestFirewalldZone(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t, "FirewallBackend="+backend)
			z := c.open(t)
			c.host.Run(t, "nft", "add table inet ours { chain forward { type filter hook forward priority filter; iifname zvm* accept; };"+
				" chain input { type filter hook input priority filter; iifname zvm* accept; }; }")
			before, files := c.rules(t), c.files(t)
			c.expect(t, "without the binding", cutOff)
			if got := diff(t, z); got != missing {
				t.Errorf("Diff: %s", got)
			}

			must(t, z.Apply(t.Context()))
			bound := c.rules(t)
			must(t, z.Apply(t.Context()))
			if got := c.rules(t); got != bound {
				t.Errorf("a second Apply changed rules:\n%s", zwrmtest.Changes(bound, got))
			}
			if got := diff(t, z); got != "" {
				t.Errorf("Diff: %s", got)
			}
			c.expect(t, "with the binding", letThrough)
			if got, want := c.cmd(t, "--zone=trusted", "--list-interfaces"), "v107712 zvm+"; got != want {
				t.Errorf("zone trusted has %q, want %q", got, want)
			}
			state, err := z.State(t.Context())
			must(t, err)
			want := zone.State{Running: true, Version: c.cmd(t, "--version"), Backend: backend, Bound: true}
			if fmt.Sprint(state) != fmt.Sprint(want) {
				t.Errorf("State: %+v, want %+v", state, want)
			}
			c.forged(t)
			c.oursDecide(t)

			must(t, z.Remove(t.Context()))
			if got := c.rules(t); got != before {
				t.Errorf("rules changed:\n%s", zwrmtest.Changes(before, got))
			}
			if got := c.files(t); got != files {
				t.Errorf("the permanent configuration changed:\n%s", zwrmtest.Changes(files, got))
			}
			c.expect(t, "after the binding", cutOff)
		})
	}
}

// forged has a VM's address used on an interface that is no TAP: it is trusted no more
// than any other there.
func (c *crowd) forged(t *testing.T) {
	t.Helper()
	zwrmtest.Run(t, c.forger, "ip", "route", "replace", "default", "via", "10.77.2.1", "src", oneVM)
	asked := zwrmtest.Serve(t, c.host.Outside, "udp/54")
	arrives := func() bool {
		_, _ = zwrmtest.Ask(t, c.forger, "udp", netip.MustParseAddrPort(zwrmtest.OutsideAddress+":54"), unanswered) // the answer would go to the VM
		return len(asked.Askers("udp/54")) > 0
	}
	if arrives() {
		t.Error("a forged address passes")
	}
	c.cmd(t, "--zone=trusted", "--add-interface=v107722")
	if !arrives() {
		t.Error("a forged address does not even pass where it should")
	}
	c.cmd(t, "--zone=trusted", "--remove-interface=v107722")
}

// oursDecide drops something in a table of our own, which stays dropped.
func (c *crowd) oursDecide(t *testing.T) {
	t.Helper()
	c.host.Run(t, "nft", "insert rule inet ours forward iifname zvm0 oifname zvm1 drop; insert rule inet ours input iifname zvm* meta l4proto { tcp, udp } th dport { 53, 80 } drop")
	want := strings.NewReplacer("VM to VM: 172.16.0.2", "VM to VM: no", "VM to host: 172.16.0.2", "VM to host: no").Replace(letThrough)
	c.expect(t, "with drops of our own", want)
	c.host.Run(t, "nft", "flush table inet ours; add rule inet ours forward iifname zvm* accept; add rule inet ours input iifname zvm* accept")
}

// TestFirewalldReloads: what becomes of the binding when firewalld reloads, restarts
// or is killed. Changed tells of it, and Apply mends it.
func TestFirewalldReloads(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		do   func(t testing.TB, f *firewalld)
		kept bool
	}{
		{name: "reload", do: func(t testing.TB, f *firewalld) { f.reload(t) }},
		{name: "complete reload", do: func(t testing.TB, f *firewalld) { f.completeReload(t) }},
		{name: "SIGHUP", do: func(t testing.TB, f *firewalld) { f.daemon.signal(t, syscall.SIGHUP) }},
		{name: "restart", do: func(t testing.TB, f *firewalld) { f.restart(t) }},
		{name: "killed and started", do: func(t testing.TB, f *firewalld) { f.kill(t); f.start(t) }},
		{name: "bus restarted", do: func(t testing.TB, f *firewalld) { f.restartBus(t); f.start(t) }},
		{name: "taken away by somebody", do: func(t testing.TB, f *firewalld) { f.cmd(t, "--remove-interface=zvm+") }},
		{name: "other settings", do: func(t testing.TB, f *firewalld) { f.configure(t, "FlushAllOnReload=no"); f.reload(t) }},
		{name: "reload that keeps interfaces", do: func(t testing.TB, f *firewalld) { f.reload(t) }, kept: true},
	}
	f := startFirewalld(t, zwrmtest.NewHost(t))
	z := f.open(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			must(t, z.Apply(t.Context()))
			test.do(t, f)
			await(t, z, test.name)
			eventually(t, "Diff says what is so", func() bool { return test.kept == (diff(t, z) == "") })
			must(t, z.Apply(t.Context()))
			if got := f.cmd(t, "--get-zone-of-interface=zvm+"); got != "trusted" {
				t.Errorf("zvm+ is in zone %q", got)
			}
			must(t, z.Remove(t.Context()))
			if got := f.try(t, "--get-zone-of-interface=zvm+"); got.Status == 0 {
				t.Errorf("zvm+ is in zone %q", got.Stdout)
			}
		})
	}
}

// TestFirewalldOwnership: a binding that a crash left is found and taken away; one
// that somebody wants to keep stays; another zone is left alone.
func TestFirewalldOwnership(t *testing.T) {
	t.Parallel()
	f := startFirewalld(t, zwrmtest.NewHost(t))
	crashed := f.open(t)
	must(t, crashed.Apply(t.Context()))
	must(t, crashed.Close())
	if got := f.cmd(t, "--get-zone-of-interface=zvm+"); got != "trusted" {
		t.Fatalf("after a crash zvm+ is in zone %q", got)
	}

	z := f.open(t)
	if got := diff(t, z); got != "" {
		t.Errorf("Diff after a crash: %s", got)
	}
	f.cmd(t, "--permanent", "--zone=trusted", "--add-interface=zvm+")
	must(t, z.Remove(t.Context()))
	if got := f.cmd(t, "--get-zone-of-interface=zvm+"); got != "trusted" {
		t.Errorf("although permanent zvm+ is in zone %q", got)
	}
	if state, err := z.State(t.Context()); err != nil || !state.Permanent {
		t.Errorf("State: %+v, %v", state, err)
	}
	f.cmd(t, "--permanent", "--zone=trusted", "--remove-interface=zvm+")
	must(t, z.Remove(t.Context()))
	if got := f.try(t, "--get-zone-of-interface=zvm+"); got.Status == 0 {
		t.Errorf("zvm+ is in zone %q", got.Stdout)
	}

	for _, interfaces := range []string{"zvm+", "z+", "zvm3"} {
		f.cmd(t, "--zone=public", "--add-interface="+interfaces)
		before := f.rules(t)
		var conflict *zone.ConflictError
		if err := z.Apply(t.Context()); !errors.As(err, &conflict) || conflict.Conflicts[0] != (zone.Conflict{Interfaces: zone.Interfaces(interfaces), Zone: "public", Target: "default"}) {
			t.Errorf("%s in another zone: %v", interfaces, err)
		}
		must(t, z.Remove(t.Context()))
		if got := f.rules(t); got != before {
			t.Errorf("%s in another zone: rules changed:\n%s", interfaces, zwrmtest.Changes(before, got))
		}
		f.cmd(t, "--zone=public", "--remove-interface="+interfaces)
		if got := diff(t, z); got != missing {
			t.Errorf("Diff: %s", got)
		}
	}
}

// TestFirewalldRefuses: an administrator's panic mode is told, and what a hung
// firewalld costs is one wait.
func TestFirewalldRefuses(t *testing.T) {
	t.Parallel()
	f := startFirewalld(t, zwrmtest.NewHost(t), "Lockdown=yes") // which lets root pass
	z := f.open(t)
	f.cmd(t, "--panic-on")
	if err := z.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "PANIC_MODE") {
		t.Errorf("Apply in panic mode: %v", err)
	}
	f.cmd(t, "--panic-off")
	must(t, z.Apply(t.Context()))

	f.daemon.signal(t, syscall.SIGSTOP)
	for range 3 {
		if _, err := z.Diff(t.Context()); err == nil || !strings.Contains(err.Error(), "firewalld does not answer") {
			t.Errorf("Diff: %v", err)
		}
	}
	f.daemon.signal(t, syscall.SIGCONT)
	await(t, z, "firewalld goes on")
	if got := diff(t, z); got != "" {
		t.Errorf("Diff: %s", got)
	}
	f.stop(t)
	await(t, z, "firewalld stopped")
	if got := diff(t, z); got != "" {
		t.Errorf("Diff without firewalld: %s", got)
	}
	must(t, z.Apply(t.Context()))
	must(t, z.Remove(t.Context()))
	if state, err := z.State(t.Context()); err != nil || state.Running {
		t.Errorf("State: %+v, %v", state, err)
	}
}

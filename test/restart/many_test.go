package restart_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"zwrm/internal/config"
	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

const (
	full   = 16384 // VMs of the default subnet
	spare  = 4     // slots that are left free
	perApp = 10    // VMs

	present = full - 1 - perApp // VMs after whileLinksAreMade
)

// settings are those of a zwrmd with a dataplane.
func settings(dataplane config.Dataplane) zwrmtest.Settings {
	return zwrmtest.Settings{"network.bridge.enabled": "true", "network.firewall": fmt.Sprintf("%q", dataplane)}
}

// TestManyVMs: with 16,384 VMs the API answers before their links stand. What is
// asked for meanwhile is done, a kill at that time loses nothing, and a start that
// finds all in place writes nothing.
func TestManyVMs(t *testing.T) {
	h := zwrmtest.NewHost(t)
	zwrmtest.Serve(t, h.Outside, "tcp/80")
	d := h.NewDaemon(t, settings(config.Iptables))
	zwrmtest.Fill(t, d.Database, full-spare, perApp)
	t.Cleanup(func() { h.DeleteTAPs(t) })

	whileLinksAreMade(t, d)
	d.Kill()
	began := time.Now()
	d.StartReady(t)
	left := d.Pending(t)
	eventually(t, "links are being made", func() error { // so all were compared before
		if n := d.Pending(t); n == left {
			return fmt.Errorf("%d links are left to make", n)
		}
		return nil
	})
	h.Run(t, "ip", "link", "set", "zvm0", "down") // which stood
	if n := d.Pending(t); n == 0 {
		t.Error("all links stood before one was broken")
	}
	d.Settle(t)
	t.Logf("all links stand %s after the next start", time.Since(began).Round(time.Millisecond))
	// Nobody told zwrmd of that one, and the next comparison of everything is minutes away.
	eventually(t, "a link that was broken while others were made", func() error {
		if out := h.Run(t, "ip", "-o", "link", "show", "zvm0"); !strings.Contains(out, ",UP") {
			return errors.New(out)
		}
		return nil
	})
	inSync(t, d, present)

	for _, test := range []struct {
		dataplane config.Dataplane
		pass      func(line string) bool
	}{
		{config.Iptables, probes},
		{config.Nftables, owns},
	} {
		d.Kill()
		d.Configure(t, settings(test.dataplane))
		d.Start(t)
		d.Kill()
		w := newWatch(t, d)
		began := time.Now()
		d.StartReady(t)
		t.Logf("%s: ready %s after a start that finds all in place", test.dataplane, time.Since(began).Round(time.Millisecond))
		if n := d.Pending(t); n != 0 || !strings.Contains(d.Log(), " links=0\n") {
			t.Errorf("%s: %d links are pending: %s", test.dataplane, n, d.Log())
		}
		w.none(t, fmt.Sprintf("a start with %s", test.dataplane), test.pass)
		inSync(t, d, present)
		if test.dataplane == config.Iptables { // which runs programs
			frugal(t, d)
			idle(t, d)
		}
		d.Kill()
		if got, want := sideEffects(t, d), unavoidable(test.dataplane); !maps.Equal(got, want) {
			t.Errorf("%s: a start that finds all in place has side effects %v, want %v", test.dataplane, got, want)
		}
	}
}

// probes reports whether an event is of the chain by which zwrmd tries out what the
// kernel can do. Nothing leads there.
func probes(line string) bool { return strings.Contains(line, "ZWRM-PROBE") }

// owns reports whether an event is that of a process which takes over our table.
func owns(line string) bool { return strings.HasPrefix(line, "add table inet zwrm") }

// whileLinksAreMade starts zwrmd where there is no link yet, as after a reboot, and
// asks for this and that. It returns while links are still being made.
func whileLinksAreMade(t *testing.T, d *zwrmtest.Daemon) {
	t.Helper()
	ctx := t.Context()
	began := time.Now()
	d.StartReady(t)
	ready := time.Since(began)
	if n := d.Pending(t); n == 0 {
		t.Error("the API answers when all links stand, not before")
	}
	c := d.Client(t)
	vms, err := c.VMs(ctx, "")
	must(t, err)
	if len(vms) != full-spare {
		t.Errorf("there are %d VMs", len(vms))
	}
	var fresh []wire.VM
	for i := range spare { // into the last slots
		vm, err := c.Attach(ctx, wire.Attach{Name: fmt.Sprintf("fresh-%d", i), App: "fresh"})
		must(t, err)
		fresh = append(fresh, vm)
	}
	must(t, c.Detach(ctx, fmt.Sprintf("vm-%d", full-spare-1))) // whose link is the last to be made
	must(t, c.Destroy(ctx, "app-1000"))
	guest := d.Host.Guest(t, fresh[0])
	if _, err := zwrmtest.Ask(t, guest.Namespace, "tcp", outsider(), 10*time.Second); err != nil {
		t.Errorf("a VM that was attached meanwhile does not reach the internet: %v", err)
	}
	check, err := c.CheckNetwork(ctx)
	must(t, err)
	if check.InSync {
		t.Error("the network is in sync while links are missing")
	}
	if n := d.Pending(t); n == 0 {
		t.Error("the requests took until all links stood")
	} else {
		t.Logf("ready %s after the start, all requests done after %s; %d links still to make then",
			ready.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), n)
	}
}

func outsider() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(zwrmtest.OutsideAddress), 80)
}

// inSync reports an error unless there are as many VMs, each has a TAP, no other TAP
// is there, and zwrmd finds nothing to mend.
func inSync(t *testing.T, d *zwrmtest.Daemon, vms int) {
	t.Helper()
	if n := len(d.VMs(t)); n != vms {
		t.Errorf("there are %d VMs, want %d", n, vms)
	}
	if n := len(taps(t, d.Host)); n != vms {
		t.Errorf("there are %d TAPs, want %d", n, vms)
	}
	check, err := d.Client(t).CheckNetwork(t.Context())
	must(t, err)
	if n := len(check.Differences); n > 0 {
		t.Errorf("there are %d differences, such as %v", n, check.Differences[0])
	}
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

package flow_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"zwrm/internal/config"
	"zwrm/test/zwrmtest"
)

// bootWithin bounds the boot of microVMs. In software on a busy machine it is slow.
const bootWithin = 3 * time.Minute

// restless is the workload of an image that from its first moment asks whom it must not
// reach: the VMs web-0 and db-0, the host by two addresses, and a service there.
const restless = `#!/bin/sh
for address in 172.16.0.2 172.16.0.10 192.0.2.1 10.0.0.1; do
	ping -q -i 0.002 "$address" >/dev/null &
done
while :; do
	nc -w 1 192.0.2.1 80 </dev/null
done
`

// TestMicroVMsAlwaysClosed is TestAlwaysClosed with the microVMs of apps, which ask from
// the inside and are asked at the addresses that they have, had or are going to have:
// while an app is deployed, scaled and destroyed, a VM restarted, and zwrmd killed in
// the middle of it, stopped and started.
//
// It is alone on the machine, since microVMs keep it busy.
func TestMicroVMsAlwaysClosed(t *testing.T) { onBoth(t, testMicroVMsAlwaysClosed) }

func testMicroVMsAlwaysClosed(t *testing.T, dataplane config.Dataplane) {
	w := newWorld(t, dataplane, true, nil)
	w.Guard(t)
	w.daemon.Must(t, "image", "add", "restless", "--kernel", zwrmtest.Image(t, "kernel"), "--initrd", restlessInitrd(t))
	s := newShop(t, w)
	deploy := func(scale string) {
		w.daemon.Must(t, "deploy", "shop", "--image", "restless", "--scale", scale, "--wait", "--timeout", bootWithin.String())
	}
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"deploy", func() { deploy("2") }},
		{"kill in the middle of a scale up", func() {
			w.daemon.Begin(t, "scale", "shop", "3")
			s.await(t, 3)
			w.daemon.Kill()
		}},
		{"start", func() { w.daemon.Start(t) }},
		{"scale down", func() { w.daemon.Must(t, "scale", "shop", "1") }},
		{"restart of a VM", func() { w.daemon.Must(t, "restart", "shop-0") }},
		{"stop", func() { w.daemon.Stop(t) }},
		{"start after a stop", func() { w.daemon.Start(t); s.asks(t) }},
		{"destroy", func() { w.daemon.Must(t, "destroy", "shop") }},
		{"deploy again", func() { deploy("1"); s.asks(t) }},
	} {
		before := s.probes.sent.Load()
		step.do()
		time.Sleep(lull)
		s.none(t, step.name)
		if s.probes.sent.Load() == before {
			t.Fatalf("%s: nothing was probed", step.name)
		}
	}
	t.Logf("%d probes sent from outside", s.probes.sent.Load())
	w.removeRules(t)
	s.all(t)
}

// shop is the app of microVMs, seen from the host.
type shop struct {
	w        *world
	received *zwrmtest.Capture // by the host, from anybody
	sent     *zwrmtest.Capture // by the host, to VMs
	probes   *probes
}

// newShop begins to probe the addresses that microVMs are going to have: those of the
// slots behind the world's own.
func newShop(t *testing.T, w *world) *shop {
	t.Helper()
	s := &shop{w: w, received: zwrmtest.NewCapture(t, w.Namespace), sent: zwrmtest.NewLeavingCapture(t, w.Namespace, "eth0", "lan0")}
	pairs := [][2]string{{"web-0", "db-0"}, {"db-0", "web-0"}, {"internet", "web-0"}, {"web-0", "host-eth0"}, {"web-0", "own-gateway"}}
	for slot := 3; slot < 9; slot++ {
		address := netip.AddrFrom4([4]byte{172, 16, 0, byte(4*slot + 2)})
		w.machines[address.String()] = machine{address: address, capture: s.sent}
		pairs = append(pairs, [2]string{"web-0", address.String()}, [2]string{"internet", address.String()})
	}
	s.probes = w.probes(t, pairs)
	return s
}

// has reports whether an address is one that a microVM has or had.
func (s *shop) has(a netip.Addr) bool {
	return s.w.machines[a.String()].capture == s.sent
}

// await waits until the app has so many VMs, whatever their state.
func (s *shop) await(t *testing.T, vms int) {
	t.Helper()
	for end := time.Now().Add(answered); len(s.addresses(t)) != vms; time.Sleep(probeEvery) {
		if time.Now().After(end) {
			t.Fatalf("the app has not %d VMs after %s", vms, answered)
		}
	}
}

// addresses returns those that the VMs of the app have now.
func (s *shop) addresses(t *testing.T) []netip.Addr {
	t.Helper()
	var all []netip.Addr
	for _, vm := range s.w.daemon.VMs(t) {
		if vm.App == "shop" {
			all = append(all, netip.MustParseAddr(vm.GuestIP))
		}
	}
	return all
}

// asks waits until each VM of the app has asked each of those that it must not reach.
func (s *shop) asks(t *testing.T) {
	t.Helper()
	s.received.Forget()
	for _, vm := range s.addresses(t) {
		for _, name := range []string{"web-0", "db-0", "host-eth0", "host-zwrmd0"} {
			to := s.w.machines[name].address
			asked := func() bool {
				return len(s.received.Find(func(p zwrmtest.Packet) bool { return p.Src == vm && p.Dst == to && p.Protocol == zwrmtest.ICMP })) > 0
			}
			for end := time.Now().Add(bootWithin); !asked(); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("the VM %s has not asked %s after %s", vm, name, bootWithin)
				}
			}
		}
	}
}

// none fails the test if a probe has arrived anywhere, whoever sent it.
func (s *shop) none(t *testing.T, during string) {
	t.Helper()
	s.probes.none(t, during)
	if got := s.strange(); len(got) > 0 {
		t.Fatalf("%s: to a VM of the app went %v", during, got[0])
	}
	for _, name := range []string{"web-0", "web-1", "db-0", "lan", "internet"} {
		if got := s.from(name); len(got) > 0 {
			t.Fatalf("%s: from a VM of the app to %s went %v", during, name, got[0])
		}
	}
	if got := s.askers(); len(got) > 0 {
		t.Fatalf("%s: a service of the host was asked by %v", during, got)
	}
}

// strange returns what the host sent to VMs of the app in the name of somebody who is
// neither their gateway nor one of them: probes, and its answers to theirs.
func (s *shop) strange() []zwrmtest.Packet {
	return s.sent.Find(func(p zwrmtest.Packet) bool { return s.has(p.Dst) && p.Src != p.Dst.Prev() && !s.has(p.Src) })
}

// from returns what a machine got from VMs of the app. They are silent to the internet,
// which would not know them.
func (s *shop) from(name string) []zwrmtest.Packet {
	return s.w.machines[name].capture.Find(func(p zwrmtest.Packet) bool { return s.has(p.Src) })
}

// askers returns the VMs of the app that a service of the host has heard of.
func (s *shop) askers() []netip.Addr {
	return slices.DeleteFunc(s.w.machines["host"].service.Askers("tcp/80"), func(a netip.Addr) bool { return !s.has(a) })
}

// all waits until all that must not have arrived so far has, without rules.
func (s *shop) all(t *testing.T) {
	t.Helper()
	var living []string
	for _, link := range strings.Fields(s.w.Run(t, "ls", "/sys/class/net")) {
		var slot int
		if _, err := fmt.Sscanf(link, "zvm%d", &slot); err == nil {
			living = append(living, netip.AddrFrom4([4]byte{172, 16, 0, byte(4*slot + 2)}).String())
		}
	}
	s.probes.pairs = slices.DeleteFunc(s.probes.pairs, func(p *pair) bool {
		to := s.w.machines[p.to]
		return s.has(to.address) && !slices.Contains(living, p.to)
	})
	s.probes.all(t)
	for what, arrived := range map[string]func() bool{
		"at web-0":                 func() bool { return len(s.from("web-0")) > 0 },
		"at db-0":                  func() bool { return len(s.from("db-0")) > 0 },
		"at a service of the host": func() bool { return len(s.askers()) > 0 },
		"at the host, by ping": func() bool {
			return slices.ContainsFunc(s.strange(), func(p zwrmtest.Packet) bool {
				return p.Src.String() == zwrmtest.HostAddress && p.Protocol == zwrmtest.ICMP
			})
		},
	} {
		for end := time.Now().Add(answered); !arrived(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("what microVMs ask does not arrive %s even without rules", what)
				break
			}
		}
	}
}

// restlessInitrd makes the initrd of the tests' image with another workload: the kernel
// unpacks archives one over the other.
func restlessInitrd(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "workload"), []byte(restless), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "initrd")
	cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", `cp "$1" "$2"; echo workload | cpio --quiet -o -H newc --owner=0:0 | gzip >>"$2"`,
		"sh", zwrmtest.Image(t, "initrd"), file)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make initrd: %v: %s", err, out)
	}
	return file
}

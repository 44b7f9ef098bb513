package flow_test

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"zwrm/internal/ipam"
	"zwrm/test/zwrmtest"
)

// TestSpoofedSource: whatever source address a guest writes into its packets, only
// those with its own leave its TAP, to nobody else: not to a VM of its own app, not
// to the internet, not to the host.
func TestSpoofedSource(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true, nil)
	guest := w.guest(t, "web-2")
	block := netip.MustParsePrefix(guest.VM.Prefix).Addr()
	forged := map[string]netip.Addr{
		"VM of the same app":        w.machines["web-1"].address,
		"VM of another app":         w.machines["db-0"].address,
		"own gateway":               guest.Gateway(),
		"own network":               block,
		"own broadcast":             guest.Address().Next(),
		"gateway of another VM":     w.machines["db-0-gateway"].address,
		"no VM's address":           netip.MustParseAddr("172.16.100.2"),
		"host":                      netip.MustParseAddr(zwrmtest.HostAddress),
		"host's private networking": netip.MustParseAddr("10.0.0.1"),
		"machine on the internet":   netip.MustParseAddr(zwrmtest.OutsideAddress),
		"machine on the lan":        netip.MustParseAddr("198.51.100.2"),
		"nobody":                    netip.MustParseAddr("0.0.0.0"),
		"everybody":                 netip.MustParseAddr("255.255.255.255"),
		"loopback":                  netip.MustParseAddr("127.0.0.1"),
		"multicast":                 netip.MustParseAddr("224.0.0.2"),
	}
	targets := map[string]machine{
		"web-1": w.machines["web-1"], "db-0": w.machines["db-0"], "internet": w.machines["internet"],
		"host": {address: guest.Gateway(), service: w.machines["host"].service},
	}
	var mac ipam.MAC
	const port = 9000
	sendFrom := func(source netip.Addr, sourcePort uint16, to netip.Addr) {
		t.Helper()
		packet := udp4(netip.AddrPortFrom(source, sourcePort), netip.AddrPortFrom(to, port))
		if err := guest.Send(ethernet(mac, etherTypeIPv4, packet)); err != nil {
			t.Fatal(err)
		}
	}
	before := w.spoofed(t)
	const forgedPort, ownPort = 4000, 4001
	for _, source := range forged {
		for _, to := range targets {
			sendFrom(source, forgedPort, to.address)
		}
	}
	// With the guest's own address the same frames arrive, and those before them
	// would have.
	for _, name := range []string{"web-1", "internet"} {
		sendFrom(guest.Address(), ownPort, targets[name].address)
		targets[name].capture.Await(t, "packet with the guest's own address at "+name, func(p zwrmtest.Packet) bool { return p.SrcPort == ownPort })
	}
	for name, to := range targets {
		if to.capture == nil {
			continue
		}
		if got := to.capture.Find(func(p zwrmtest.Packet) bool { return p.SrcPort == forgedPort }); len(got) > 0 {
			t.Errorf("forged packets reached %s: %v", name, got)
		}
	}
	for name, source := range forged {
		if targets["host"].service.Saw("udp/9000", source, guest.Gateway()) {
			t.Errorf("a packet from %s (%s) reached the host", source, name)
		}
	}
	if got, want := w.spoofed(t)-before, len(forged)*len(targets); got != want {
		t.Errorf("the rules against forged sources dropped %d packets, want %d", got, want)
	}
}

// spoofed returns how many packets the rules against forged sources have dropped.
func (w *world) spoofed(t *testing.T) int {
	t.Helper()
	total := 0
	for line := range strings.Lines(w.Run(t, "iptables", "-t", "raw", "-nvxL", "ZWRM-RAW")) {
		if !strings.Contains(line, "zwrm: spoofed") {
			continue
		}
		n, err := strconv.Atoi(strings.Fields(line)[0])
		if err != nil {
			t.Fatalf("read counter of %q: %v", line, err)
		}
		total += n
	}
	return total
}

// TestSpoofedMAC: there is no bridge, so a forged Ethernet address reaches nobody
// and takes nothing from anybody; the packet goes by its IP address.
func TestSpoofedMAC(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true, nil)
	guest := w.guest(t, "web-2")
	victim := w.machines["web-1"]
	forged := ipam.MAC{0x02, 0x5a, 172, 16, 0, 6} // of web-1, in slot 1
	to := netip.AddrPortFrom(netip.MustParseAddr(zwrmtest.OutsideAddress), 9000)
	if err := guest.Send(ethernet(forged, etherTypeIPv4, udp4(netip.AddrPortFrom(guest.Address(), 4000), to))); err != nil {
		t.Fatal(err)
	}
	w.machines["internet"].capture.Await(t, "packet of the guest", func(p zwrmtest.Packet) bool { return p.DstPort == 9000 })
	if _, err := w.try(t, flow{from: "web-1", to: "internet", protocol: "udp/9000"}, answered); err != nil {
		t.Errorf("the VM whose address was forged gets no answers: %v", err)
	}
	if got := victim.capture.Find(func(p zwrmtest.Packet) bool { return p.DstPort == 4000 }); len(got) > 0 {
		t.Errorf("the answer to the guest went to the VM whose address it forged: %v", got)
	}
}

// TestNoBroadcast: what a guest sends to everybody reaches no other guest, not even of
// its own app, and not the internet.
func TestNoBroadcast(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true, nil)
	guest := w.guest(t, "web-2")
	everybody := ipam.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	const toAll, toOne = 4000, 4001
	for _, address := range []string{"255.255.255.255", "224.0.0.251", "239.255.255.250", "172.16.255.255"} {
		to := netip.AddrPortFrom(netip.MustParseAddr(address), 9000)
		frame := ethernet(ipam.MAC{}, etherTypeIPv4, udp4(netip.AddrPortFrom(guest.Address(), toAll), to))
		for _, hardware := range []ipam.MAC{everybody, ipam.GatewayMAC()} {
			copy(frame, hardware[:])
			if err := guest.Send(frame); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range []string{"web-0", "web-1", "internet"} {
		to := netip.AddrPortFrom(w.machines[name].address, 9000)
		if err := guest.Send(ethernet(ipam.MAC{}, etherTypeIPv4, udp4(netip.AddrPortFrom(guest.Address(), toOne), to))); err != nil {
			t.Fatal(err)
		}
		w.machines[name].capture.Await(t, "packet to one at "+name, func(p zwrmtest.Packet) bool { return p.SrcPort == toOne })
	}
	for _, name := range []string{"web-0", "web-1", "db-0", "lan", "internet"} {
		if got := w.machines[name].capture.Find(func(p zwrmtest.Packet) bool { return p.SrcPort == toAll }); len(got) > 0 {
			t.Errorf("broadcasts reached %s: %v", name, got)
		}
	}
}

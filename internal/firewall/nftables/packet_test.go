package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/firewall"
	"zwrm/internal/host"
	"zwrm/internal/host/nstest"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// world is a host with the rules of a Dataplane, a machine behind its interface
// eth0, and guests. The host is the network namespace of the test's process.
type world struct {
	kernel  *host.Kernel
	layout  ipam.Layout
	outside *nstest.Namespace
}

// Addresses of the host's interface eth0 and of the machine behind it.
const (
	hostAddress    = "192.0.2.1"
	outsideAddress = "192.0.2.2"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	layout, err := ipam.NewLayout(netip.MustParsePrefix("172.16.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := host.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kernel.Close() })
	t.Cleanup(func() { // when the Dataplanes are closed, and so own no table
		if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
			t.Errorf("nft flush ruleset: %v\n%s", err, out)
		}
	})
	w := &world{kernel: kernel, layout: layout, outside: nstest.New(t)}
	var here *nstest.Namespace
	here.Set(t, "net/ipv4/ip_forward", "1")
	nstest.Veth(t, nil, "eth0", w.outside, "eth0")
	here.Address(t, "eth0", netip.MustParsePrefix(hostAddress+"/24"))
	w.outside.Address(t, "eth0", netip.MustParsePrefix(outsideAddress+"/24"))
	w.outside.Route(t, netip.MustParsePrefix("172.16.0.0/16"), netip.MustParseAddr(hostAddress))
	return w
}

// guest returns a guest of an app.
func (w *world) guest(t *testing.T, slot ipam.Slot, id model.AppID) *nstest.Guest {
	t.Helper()
	address := netip.PrefixFrom(w.layout.Guest(slot), 30)
	tap := host.TAP{Name: slot.TAP(), MAC: ipam.GatewayMAC(), MTU: 1500, Address: netip.PrefixFrom(w.layout.Gateway(slot), 30)}
	if err := w.kernel.CreateTAP(t.Context(), tap); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.kernel.DeleteLinks(context.Background(), tap.Name); err != nil {
			t.Error(err)
		}
	})
	w.group(t, slot, id.Group())
	return nstest.NewGuest(t, tap.Name, address, w.layout.Gateway(slot), w.layout.GuestMAC(slot))
}

func (w *world) group(t *testing.T, slot ipam.Slot, group model.Group) {
	t.Helper()
	if err := w.kernel.SetGroup(t.Context(), group, slot.TAP()); err != nil {
		t.Fatal(err)
	}
}

// dropped returns how many packets the rules of a reason dropped.
func dropped(t *testing.T, reason firewall.Reason) int {
	t.Helper()
	sum := 0
	for _, m := range regexp.MustCompile(`packets (\d+) bytes \d+ drop comment "zwrm: `+string(reason)+`"`).FindAllStringSubmatch(nft(t, "list", "table", "inet", "zwrm"), -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// reach asks whether a guest gets an answer by ping.
func reach(t *testing.T, who string, from *nstest.Guest, to string, want bool) {
	t.Helper()
	if err := from.Ping(netip.MustParseAddr(to)); (err == nil) != want {
		t.Errorf("%s: %v, want an answer: %t", who, err, want)
	}
}

// TestPackets is the firewall table of the design with real packets.
func TestPackets(t *testing.T) {
	w := newWorld(t)
	d := applied(t, withApps([]firewall.App{app("web", 1)}))
	a, other := w.guest(t, 1, 1), w.guest(t, 3, 2)
	w.guest(t, 2, 1)

	reach(t, "same app", a, "172.16.0.10", true)
	reach(t, "own gateway", a, "172.16.0.5", true)
	reach(t, "the internet", a, outsideAddress, true)

	before := dropped(t, firewall.OtherApp)
	reach(t, "another app", other, "172.16.0.6", false)
	if dropped(t, firewall.OtherApp) == before {
		t.Error("what another app sent was not counted as dropped")
	}
	before = dropped(t, firewall.HostClosed)
	reach(t, "gateway of another VM", a, "172.16.0.9", false)
	reach(t, "address of the host", a, hostAddress, false)
	if dropped(t, firewall.HostClosed) == before {
		t.Error("what was sent to the host was not counted as dropped")
	}
	w.outside.Do(t, func() {
		if conn, err := net.DialTimeout("tcp", "172.16.0.6:1", patience); err == nil {
			conn.Close()
			t.Error("a machine outside reaches a guest")
		} else if e := net.Error(nil); !errors.As(err, &e) || !e.Timeout() {
			t.Errorf("a machine outside gets an answer: %v", err)
		}
	})

	// After zwrmd is killed all of this still holds.
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	reach(t, "same app without zwrmd", a, "172.16.0.10", true)
	reach(t, "another app without zwrmd", other, "172.16.0.6", false)
	applied(t, withApps([]firewall.App{app("web", 1), app("db", 2)}))

	w.group(t, 1, model.GroupUnassigned)
	before = dropped(t, firewall.Unassigned)
	reach(t, "own gateway from a closed TAP", a, "172.16.0.5", false)
	if dropped(t, firewall.Unassigned) == before {
		t.Error("what a closed TAP sent was not counted as dropped")
	}
}

// patience is how long a test waits for an answer that does not come.
const patience = 1500 * time.Millisecond

// TestMasquerade: a machine outside sees the host's address, and a connection
// lives on while the table is made anew.
func TestMasquerade(t *testing.T) {
	w := newWorld(t)
	d := applied(t, withApps(nil))
	guest := w.guest(t, 1, 1)
	var listener net.Listener
	w.outside.Do(t, func() {
		var err error
		if listener, err = net.Listen("tcp", outsideAddress+":80"); err != nil {
			t.Fatal(err)
		}
	})
	defer listener.Close()
	conn, err := guest.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if got := server.RemoteAddr().(*net.TCPAddr).IP.String(); got != hostAddress {
		t.Errorf("the machine outside sees %s, want %s", got, hostAddress)
	}
	for _, rules := range []firewall.Ruleset{policy(func(p *firewall.Policy) { p.Private = false }), policy(nil)} {
		mustApply(t, d, rules)
		for _, pair := range [][2]net.Conn{{conn, server}, {server, conn}} {
			if _, err := pair[0].Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := pair[1].Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestForgedSource: whatever source a guest writes, only its own gets through, and
// IPv6 does not.
func TestForgedSource(t *testing.T) {
	w := newWorld(t)
	applied(t, withApps([]firewall.App{app("web", 1)}))
	liar, victim := w.guest(t, 1, 1), w.guest(t, 2, 1)
	inbox := victim.ListenPacket("udp4", "172.16.0.10:9")
	forged := []string{"172.16.0.10", "172.16.0.5", "172.16.0.4", "172.16.0.7", "172.16.0.14", "172.16.9.2", hostAddress, outsideAddress, "127.0.0.1",
		"127.0.0.2", "0.0.0.0", "0.0.0.2", "224.0.0.2", "255.255.255.254", "10.0.0.2"}
	before := dropped(t, firewall.Spoofed)
	for _, source := range append(forged, "172.16.0.6") {
		if err := liar.Send(udpFrame(w.layout.GuestMAC(1), source, "172.16.0.10")); err != nil {
			t.Fatal(err)
		}
	}
	if got := sender(t, inbox); got != "172.16.0.6:4096" {
		t.Errorf("a packet of %s got through", got)
	}
	if got := dropped(t, firewall.Spoofed) - before; got != len(forged) {
		t.Errorf("%d packets were counted as spoofed, want %d", got, len(forged))
	}
}

// TestForeignMAC: a guest's packets pass with its own Ethernet address and no other.
func TestForeignMAC(t *testing.T) {
	w := newWorld(t)
	d := applied(t, withApps([]firewall.App{app("web", 1)}))
	liar, victim := w.guest(t, 1, 1), w.guest(t, 2, 1)
	inbox := victim.ListenPacket("udp4", "172.16.0.10:9")
	own := w.layout.GuestMAC(1)
	forged := []ipam.MAC{ipam.GatewayMAC(), w.layout.GuestMAC(2), {}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	for i := range own {
		near := own
		near[i] ^= 4
		forged = append(forged, near)
	}
	for i, mac := range append(forged, own) {
		frame := udpFrame(mac, "172.16.0.6", "172.16.0.10")
		frame[14+20+1] = byte(i) // the port it comes from tells which it is
		if err := liar.Send(frame); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := sender(t, inbox), fmt.Sprintf("172.16.0.6:%d", 0x1000+len(forged)); got != want {
		t.Errorf("a packet of %s got through first, want %s", got, want)
	}
	if got, want := mustDrops(t, d)[firewall.SpoofedMAC], (firewall.Count{Packets: uint64(len(forged)), Bytes: uint64(len(forged) * udpSize)}); got != want {
		t.Errorf("%v was counted, want %v", got, want)
	}
}

// sender returns who sent the next datagram. One that does not come fails the test.
func sender(t *testing.T, inbox net.PacketConn) string {
	t.Helper()
	if err := inbox.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, from, err := inbox.ReadFrom(make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	return from.String()
}

// TestNoGap: while the table is made anew again and again, nothing passes between
// apps.
func TestNoGap(t *testing.T) {
	w := newWorld(t)
	d := applied(t, withApps([]firewall.App{app("web", 1)}))
	friend, victim, other := w.guest(t, 1, 1), w.guest(t, 2, 1), w.guest(t, 3, 2)
	inbox := victim.ListenPacket("udp4", "172.16.0.10:9")
	tried := 0
	ended := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		frame := udpFrame(w.layout.GuestMAC(3), "172.16.0.14", "172.16.0.10")
		for {
			select {
			case <-ended:
				return
			default:
				if err := other.Send(frame); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for i := range 60 {
		apps := manyApps(200 + i%2)
		apps[0].Name = model.Name([]string{"a", "b"}[i%2])
		mustApply(t, d, withApps(apps))
		tried += dropped(t, firewall.OtherApp) // since the table was made
	}
	close(ended)
	sending.Wait()
	if err := friend.Send(udpFrame(w.layout.GuestMAC(1), "172.16.0.6", "172.16.0.10")); err != nil {
		t.Fatal(err)
	}
	if got := sender(t, inbox); got != "172.16.0.6:4096" {
		t.Errorf("a packet of %s, of another app, got through", got)
	}
	if tried == 0 {
		t.Error("nothing of another app was dropped, so nothing was tried")
	}
}

// udpSize is that of the packet in udpFrame's frame, in bytes.
const udpSize = 28

// udpFrame returns an Ethernet frame with an empty UDP datagram (RFC 768, RFC 791)
// to port 9, for the gateway to forward.
func udpFrame(mac ipam.MAC, source, dest string) []byte {
	header := []byte{0x45, 0, 0, udpSize, 0, 1, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	for _, address := range []string{source, dest} {
		header = append(header, netip.MustParseAddr(address).AsSlice()...)
	}
	sum := uint32(0)
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(header[10:], ^uint16(sum&0xffff+sum>>16))
	gateway := ipam.GatewayMAC()
	frame := append(append(gateway[:], mac[:]...), 0x08, 0)
	return append(append(frame, header...), 0x10, 0, 0, 9, 0, 8, 0, 0)
}

package nstest_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"zwrm/internal/host"
	"zwrm/internal/host/nstest"
	"zwrm/internal/ipam"
)

// waits makes the test binary a process that waits for a signal.
const waits = "ZWRM_TEST_WAITS"

func TestMain(m *testing.M) {
	if os.Getenv(waits) == "" {
		nstest.Main(m)
	}
	nstest.Enter()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	fmt.Println("ready")
	fmt.Println("got", <-signals)
}

// TestSignal: whoever ends the process that he knows of lets the one inside end in order.
func TestSignal(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "ZWRM_NSTEST=") }), waits+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "ready" {
		t.Errorf("it said %q", lines.Text())
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if !lines.Scan() || lines.Text() != "got terminated" {
		t.Errorf("it said %q", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// links returns the names of the links of the calling thread's namespace.
func links(t *testing.T) []string {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range interfaces {
		names = append(names, i.Name)
	}
	return names
}

func TestProcessHasItsOwnNetwork(t *testing.T) {
	if names := links(t); len(names) != 1 || names[0] != "lo" {
		t.Errorf("links are %v", names)
	}
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.IsDir() || entry.Name() == "eth0" {
			t.Errorf("sysfs shows %s", entry.Name())
		}
	}
}

func TestNamespacesAreApart(t *testing.T) {
	a, b := nstest.New(t), nstest.New(t)
	nstest.Veth(t, a, "to-b", b, "to-a")
	for _, in := range []struct {
		ns   *nstest.Namespace
		link string
	}{{a, "to-b"}, {b, "to-a"}} {
		in.ns.Do(t, func() {
			if names := links(t); len(names) != 2 || names[1] != in.link {
				t.Errorf("links are %v", names)
			}
		})
	}
	if names := links(t); len(names) != 1 {
		t.Errorf("links of the process are %v", names)
	}
}

func TestVethToTheProcess(t *testing.T) {
	outside := nstest.New(t)
	var process *nstest.Namespace
	nstest.Veth(t, nil, "uplink", outside, "eth0")
	process.Address(t, "uplink", netip.MustParsePrefix("192.0.2.1/24"))
	outside.Address(t, "eth0", netip.MustParsePrefix("192.0.2.2/24"))
	outside.Route(t, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.0.2.1"))
	outside.Do(t, func() {
		conn, err := net.Dial("udp4", "198.51.100.1:53") // by the default route
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if local := conn.LocalAddr().(*net.UDPAddr).IP.String(); local != "192.0.2.2" {
			t.Errorf("source is %s", local)
		}
	})
}

// newGuest returns a guest behind a TAP as ZWRM makes it, and the addresses of
// both ends.
func newGuest(t *testing.T, slot ipam.Slot) (guest *nstest.Guest, gateway, address netip.Addr) {
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
	gateway, address = layout.Gateway(slot), layout.Guest(slot)
	tap := host.TAP{Name: slot.TAP(), MAC: ipam.GatewayMAC(), MTU: 1500, Address: netip.PrefixFrom(gateway, 30)}
	if err := kernel.CreateTAP(t.Context(), tap); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kernel.DeleteLinks(context.Background(), tap.Name); err != nil {
			t.Error(err)
		}
	})
	return nstest.NewGuest(t, tap.Name, netip.PrefixFrom(address, 30), gateway, layout.GuestMAC(slot)), gateway, address
}

func TestGuestTalksTCP(t *testing.T) {
	guest, gateway, address := newGuest(t, 3)
	if err := guest.Ping(gateway); err != nil {
		t.Error(err)
	}
	if err := guest.Ping(netip.MustParseAddr("192.0.2.1")); err == nil {
		t.Error("an address that nobody has answered")
	}
	payload := bytes.Repeat([]byte("zwrm "), 100_000) // many segments
	listener := guest.Listen("tcp", net.JoinHostPort(address.String(), "80"))
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Write(payload)
	}()
	conn, err := net.Dial("tcp", listener.Addr().String()) // from the host
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("got %d bytes and %v, want %d", len(got), err, len(payload))
	}
	if _, err := guest.Dial("tcp", net.JoinHostPort(gateway.String(), "81")); err == nil {
		t.Error("connected where nobody listens")
	}
}

// A frame of any content goes out as it is, and what comes in is seen.
func TestGuestSendsAndCaptures(t *testing.T) {
	guest, gateway, address := newGuest(t, 4)
	seen := guest.Capture()
	ask := arpRequest(ipam.MAC{2, 0, 0, 0, 0, 9}, address, gateway)
	if err := guest.Send(ask); err != nil {
		t.Fatal(err)
	}
	timeout := time.After(10 * time.Second)
	for {
		select {
		case frame := <-seen:
			if len(frame) >= 42 && binary.BigEndian.Uint16(frame[20:]) == 2 { // an ARP reply
				if got := ipam.MAC(frame[6:12]); got != ipam.GatewayMAC() {
					t.Errorf("the gateway is %s", got)
				}
				return
			}
		case <-timeout:
			t.Fatal("no answer")
		}
	}
}

// arpRequest returns an Ethernet frame (RFC 826).
func arpRequest(from ipam.MAC, sender, target netip.Addr) []byte {
	frame := bytes.Repeat([]byte{0xff}, 6)
	frame = append(frame, from[:]...)
	frame = append(frame, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
	frame = append(frame, from[:]...)
	frame = append(frame, sender.AsSlice()...)
	frame = append(frame, make([]byte, 6)...)
	return append(frame, target.AsSlice()...)
}

func TestDoFailsTheTest(t *testing.T) {
	ns := nstest.New(t)
	ran := false
	inner := &recorder{TB: t}
	done := make(chan struct{})
	go func() { // FailNow ends the goroutine that it is called on
		defer close(done)
		ns.Do(inner, func() { inner.FailNow() })
		ran = true
	}()
	<-done
	if ran || !inner.failed {
		t.Errorf("the test went on: %t, failed: %t", ran, inner.failed)
	}
}

// recorder notes a failure instead of failing.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) FailNow() {
	r.failed = true
	runtime.Goexit()
}

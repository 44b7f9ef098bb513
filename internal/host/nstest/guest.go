package nstest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/icmp"
	"zwrm/internal/host/netlink"
	"zwrm/internal/ipam"
)

const (
	// tapFlags are those by which VMMs open a TAP.
	tapFlags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	// headerSize is that of struct virtio_net_hdr, which comes before each frame.
	headerSize = 10
	// frameSize holds the largest frame and its header.
	frameSize = headerSize + 14 + 65535
	// patience is how long a guest waits for an answer. What is never answered
	// takes a test this long.
	patience = 1500 * time.Millisecond
	// captured is how many frames wait for the reader of Capture.
	captured = 256
)

// Guest is a machine behind a TAP: a network namespace with the kernel's whole
// TCP/IP stack, and a pump that carries frames between its link eth0 and the TAP,
// as a VMM does. It has no IPv6 of its own, so that it sends nothing unasked;
// Send can send anything.
type Guest struct {
	*Namespace
	t    testing.TB
	tap  *os.File // the host's TAP, opened as by a VMM
	eth0 *os.File // the guest's link

	mu      sync.Mutex
	capture chan []byte // nil: nobody wants to see frames
}

// NewGuest starts a guest behind the TAP of the given name in the calling thread's
// namespace. It runs until the test ends, and is configured with what a microVM
// gets on its kernel command line.
func NewGuest(t testing.TB, tap string, address netip.Prefix, gateway netip.Addr, mac ipam.MAC) *Guest {
	t.Helper()
	g := &Guest{Namespace: New(t), t: t}
	var here *Namespace
	var mtu uint32
	here.with(t, "read MTU of "+tap, func(conn *netlink.Conn) (err error) {
		mtu, err = mtuOf(conn, tap)
		return err
	})
	g.tap = OpenTAP(t, tap)
	t.Cleanup(func() { g.tap.Close() })
	g.Set(t, "net/ipv6/conf/default/disable_ipv6", "1")
	g.Do(t, func() { g.eth0 = OpenTAP(t, "eth0") })
	t.Cleanup(func() { g.eth0.Close() })
	g.with(t, "configure eth0 of guest", func(conn *netlink.Conn) error {
		request := netlink.NewLink(unix.RTM_SETLINK, 0, 0, 0, 0)
		request.Text(unix.IFLA_IFNAME, "eth0")
		request.Bytes(unix.IFLA_ADDRESS, mac[:])
		request.Uint32(unix.IFLA_MTU, mtu)
		return conn.Do(request)
	})
	g.Address(t, "eth0", address)
	g.Up(t, "eth0")
	g.Route(t, netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway)

	var pumps sync.WaitGroup
	pumps.Go(func() { g.pump(g.eth0, g.tap, func([]byte) {}) })
	pumps.Go(func() { g.pump(g.tap, g.eth0, g.show) })
	t.Cleanup(func() {
		g.tap.Close() // ends the pumps, which wait for frames
		g.eth0.Close()
		pumps.Wait()
	})
	return g
}

// OpenTAP opens a TAP by its name, in the namespace of the calling thread, as a VMM
// does. Before each frame comes a struct virtio_net_hdr of 10 bytes (linux/virtio_net.h).
func OpenTAP(t testing.TB, name string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatalf("open /dev/net/tun: %v", err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(tapFlags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err == nil { // a VMM that had the TAP before may have left another size
		err = unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, headerSize)
	}
	if err != nil {
		unix.Close(fd)
		t.Fatalf("open TAP %q: %v", name, err)
	}
	return os.NewFile(uintptr(fd), name)
}

// pump copies frames until a file is closed. A frame that the other side does
// not take, for a link that is down, is lost, as on a wire.
func (g *Guest) pump(from io.Reader, to io.Writer, see func(frame []byte)) {
	buf := make([]byte, frameSize)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if n > headerSize {
			see(buf[headerSize:n])
		}
		_, _ = to.Write(buf[:n])
	}
}

func (g *Guest) show(frame []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.capture == nil {
		return
	}
	select {
	case g.capture <- append([]byte(nil), frame...):
	default: // the reader is late: the guest's network must not wait for it
	}
}

// Capture returns the Ethernet frames that the guest receives from now on. Frames
// for which the channel has no room are left out of it.
func (g *Guest) Capture() <-chan []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.capture = make(chan []byte, captured)
	return g.capture
}

// Send sends an Ethernet frame as it is, as a guest with root may.
func (g *Guest) Send(frame []byte) error {
	if _, err := g.tap.Write(append(make([]byte, headerSize), frame...)); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	return nil
}

// Ping asks an address for an answer by ICMP echo, for a bounded time.
func (g *Guest) Ping(address netip.Addr) (err error) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	g.Do(g.t, func() { err = icmp.Echo(ctx, address) })
	return err
}

// Dial connects as net.Dial does, for a bounded time. The address is numeric.
func (g *Guest) Dial(network, address string) (conn net.Conn, err error) {
	g.t.Helper()
	dialer := net.Dialer{Timeout: patience}
	g.Do(g.t, func() { conn, err = dialer.Dial(network, address) })
	return conn, err
}

// Listen listens as net.Listen does, until the test ends.
func (g *Guest) Listen(network, address string) net.Listener {
	g.t.Helper()
	var listener net.Listener
	var err error
	g.Do(g.t, func() { listener, err = net.Listen(network, address) })
	if err != nil {
		g.t.Fatalf("listen on %s %s in guest: %v", network, address, err)
	}
	g.t.Cleanup(func() { listener.Close() })
	return listener
}

// ListenPacket listens as net.ListenPacket does, until the test ends.
func (g *Guest) ListenPacket(network, address string) net.PacketConn {
	g.t.Helper()
	var conn net.PacketConn
	var err error
	g.Do(g.t, func() { conn, err = net.ListenPacket(network, address) })
	if err != nil {
		g.t.Fatalf("listen on %s %s in guest: %v", network, address, err)
	}
	g.t.Cleanup(func() { conn.Close() })
	return conn
}

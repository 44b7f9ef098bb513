package verdict_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/firewall"
	"zwrm/internal/host/nstest"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/test/zwrmtest"
)

func TestMain(m *testing.M) { zwrmtest.Main(m) }

// headerSize is that of struct virtio_net_hdr, which comes before each frame.
const headerSize = 10

// wire is a device of the host and the machine at its other end, which is the test.
type wire struct {
	firewall.Device
	address netip.Prefix // the host's
	peer    netip.Addr
	tap     *os.File
}

func (w *wire) mac() ipam.MAC { return ipam.MACOf(w.peer) }

// site is a host with devices of each kind, all of which are TAPs.
type site struct {
	*nstest.Namespace
	t       *testing.T
	wires   []*wire
	raw     []*net.IPConn // get a copy of what comes to the host itself, behind the rules
	observe map[uint16]seen
}

// seen is what came of a packet.
type seen struct {
	by     string // device; empty: the host itself
	source netip.Addr
}

const appA, appB = model.GroupUnassigned + 1, model.GroupUnassigned + 2

// hostMAC is the address of the host's side of each wire.
func hostMAC() ipam.MAC { return ipam.GatewayMAC() }

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{Namespace: nstest.New(t), t: t, observe: map[uint16]seen{}}
	for _, w := range []struct {
		name    string
		group   model.Group
		address string
	}{
		{"zvm0", appA, "172.16.0.1/30"},
		{"zvm1", appA, "172.16.0.5/30"},
		{"zvm2", appB, "172.16.0.9/30"},
		{"zvm3", model.GroupUnassigned, "172.16.0.13/30"},
		{"zvm4", 0, "172.16.0.17/30"},
		{"eth0", 0, "192.0.2.1/24"},
		{"lan0", 0, "198.51.100.1/24"},
	} {
		address := netip.MustParsePrefix(w.address)
		s.add(&wire{Device: firewall.Device{Name: w.name, Group: w.group}, address: address, peer: address.Addr().Next()})
	}
	// The rules alone shall decide, so the kernel's own checks are off.
	for _, setting := range []string{"ipv4/ip_forward=1", "ipv4/conf/all/rp_filter=0", "ipv4/conf/all/accept_local=1", "ipv6/conf/all/forwarding=1",
		"netfilter/nf_conntrack_udp_timeout=600", "netfilter/nf_conntrack_udp_timeout_stream=600"} {
		name, value, _ := strings.Cut(setting, "=")
		s.Set(t, "net/"+name, value)
	}
	s.run("ip", "route", "add", "default", "via", "192.0.2.2")
	s.run("ip", "-6", "route", "add", "default", "via", "fd00::192:0:2:2", "dev", "eth0")
	for _, protocol := range []string{"ip4:icmp", "ip4:tcp", "ip4:udp"} {
		s.listen(protocol)
	}
	return s
}

// six returns the IPv6 address of a machine with an IPv4 address.
func six(a netip.Addr) netip.Addr {
	return netip.MustParseAddr("fd00::" + strings.ReplaceAll(a.String(), ".", ":"))
}

func (s *site) add(w *wire) {
	s.t.Helper()
	s.run("ip", "tuntap", "add", w.Name, "mode", "tap", "vnet_hdr")
	s.run("ip", "link", "set", w.Name, "address", hostMAC().String(), "group", fmt.Sprint(uint32(w.Group)), "up")
	s.run("ip", "address", "add", w.address.String(), "dev", w.Name)
	s.run("ip", "neigh", "add", w.peer.String(), "lladdr", w.mac().String(), "dev", w.Name)
	s.Set(s.t, "net/ipv4/conf/"+w.Name+"/rp_filter", "0")
	s.run("ip", "address", "add", six(w.address.Addr()).String()+"/128", "dev", w.Name, "nodad")
	s.run("ip", "-6", "route", "add", six(w.peer).String()+"/128", "dev", w.Name)
	s.run("ip", "neigh", "add", six(w.peer).String(), "lladdr", w.mac().String(), "dev", w.Name)
	s.Do(s.t, func() { w.tap = nstest.OpenTAP(s.t, w.Name) })
	s.t.Cleanup(func() { w.tap.Close() })
	s.wires = append(s.wires, w)
}

func (s *site) listen(protocol string) {
	s.t.Helper()
	var conn *net.IPConn
	var err error
	s.Do(s.t, func() { conn, err = net.ListenIP(protocol, &net.IPAddr{IP: net.IPv4zero}) })
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	s.raw = append(s.raw, conn)
}

func (s *site) run(name string, args ...string) {
	s.t.Helper()
	s.Do(s.t, func() {
		if out, err := exec.CommandContext(s.t.Context(), name, args...).CombinedOutput(); err != nil {
			s.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
		}
	})
}

func (s *site) wire(name string) *wire {
	return s.wires[slices.IndexFunc(s.wires, func(w *wire) bool { return w.Name == name })]
}

// owner returns the wire whose machine has the address, or the one that leads there;
// local reports that the host itself has it.
func (s *site) owner(a netip.Addr) (w *wire, local bool) {
	for _, w := range s.wires {
		if a == w.address.Addr() {
			return w, true
		}
	}
	for _, w := range s.wires {
		if w.address.Contains(a) {
			return w, false
		}
	}
	return s.wire("eth0"), false
}

// send sends a packet from where it comes.
func (s *site) send(p packet) {
	s.t.Helper()
	if p.in == "" {
		s.Do(s.t, func() {
			conn, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
			if err != nil {
				s.t.Fatal(err)
			}
			defer unix.Close(conn)
			_ = unix.Sendto(conn, p.bytes, 0, &unix.SockaddrInet4{Addr: p.dest.As4()}) // EPERM: a rule drops it
		})
		return
	}
	if _, err := s.wire(p.in).tap.Write(append(make([]byte, headerSize), p.frame()...)); err != nil {
		s.t.Fatalf("send by %s: %v", p.in, err)
	}
}

// settle returns when everything that was sent is where it goes: each device answers
// ARP, which no rule sees, after what it received before.
func (s *site) settle() {
	s.t.Helper()
	for _, w := range s.wires {
		self, peer, broadcast := w.mac(), w.peer.As4(), bytes.Repeat([]byte{0xff}, 6)
		ask := slices.Concat(broadcast, self[:], []byte{0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1}, self[:], peer[:], make([]byte, 6), w.address.Addr().AsSlice())
		if _, err := w.tap.Write(append(make([]byte, headerSize), ask...)); err != nil {
			s.t.Fatal(err)
		}
		if err := w.tap.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			s.t.Fatal(err)
		}
		for !s.read(w) {
		}
	}
	for _, w := range s.wires { // what others sent there after its answer
		s.drain(w.tap, func(frame []byte, _ unix.Sockaddr) { s.note(w, frame[headerSize:]) })
	}
	for _, conn := range s.raw {
		s.drain(conn, s.heard)
	}
}

// read notes one frame that the host sent to a wire. It reports whether it is the
// answer of settle.
func (s *site) read(w *wire) bool {
	s.t.Helper()
	var buf [2048]byte
	n, err := w.tap.Read(buf[:])
	if err != nil {
		s.t.Fatalf("%s does not answer ARP: %v", w.Name, err)
	}
	frame := buf[headerSize:n]
	s.note(w, frame)
	return binary.BigEndian.Uint16(frame[12:]) == 0x0806 && frame[21] == 2
}

// drain reads what is there already, without waiting for more.
func (s *site) drain(from syscall.Conn, note func(data []byte, source unix.Sockaddr)) {
	s.t.Helper()
	conn, err := from.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	var buf [2048]byte
	for {
		var n int
		var source unix.Sockaddr
		var failed error
		err := conn.Read(func(fd uintptr) bool {
			if n, source, failed = unix.Recvfrom(int(fd), buf[:], 0); errors.Is(failed, unix.ENOTSOCK) {
				n, failed = unix.Read(int(fd), buf[:])
			}
			return true
		})
		if err := errors.Join(err, failed); errors.Is(err, unix.EAGAIN) {
			return
		} else if err != nil {
			s.t.Fatal(err)
		}
		note(buf[:n], source)
	}
}

// note notes a packet of ours: one that ends with the identification in its header.
// What the host itself says about one, quoting it, has another in its header.
func (s *site) note(w *wire, frame []byte) {
	packet := frame[14:]
	id := binary.BigEndian.Uint16(packet[len(packet)-2:])
	switch etherType := binary.BigEndian.Uint16(frame[12:]); {
	case etherType == 0x0800 && id == binary.BigEndian.Uint16(packet[4:]):
		s.observe[id] = seen{w.Name, netip.AddrFrom4([4]byte(packet[12:]))}
	case etherType == 0x86dd && id == binary.BigEndian.Uint16(packet[2:]):
		s.observe[id] = seen{w.Name, netip.AddrFrom16([16]byte(packet[8:]))}
	}
}

// heard notes what came to the host itself: a packet with its IPv4 header.
func (s *site) heard(packet []byte, _ unix.Sockaddr) {
	if id := binary.BigEndian.Uint16(packet[len(packet)-2:]); id == binary.BigEndian.Uint16(packet[4:]) {
		s.observe[id] = seen{"", netip.AddrFrom4([4]byte(packet[12:]))}
	}
}

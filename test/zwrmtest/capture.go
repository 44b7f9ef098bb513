package zwrmtest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/nstest"
)

// arriveWithin bounds how long a Capture waits for a packet.
const arriveWithin = 5 * time.Second

// Protocols of Packet (IANA protocol numbers).
const (
	ICMP = unix.IPPROTO_ICMP
	TCP  = unix.IPPROTO_TCP
	UDP  = unix.IPPROTO_UDP
)

// Packet is what a Capture saw of one IP packet.
type Packet struct {
	Src, Dst netip.Addr
	Protocol int
	// SrcPort and DstPort are those of TCP and UDP; DstPort of ICMP is its type.
	SrcPort, DstPort uint16
}

// String returns the packet as in "17 172.16.0.2:4000 > 192.0.2.2:53".
func (p Packet) String() string {
	return fmt.Sprintf("%d %s > %s", p.Protocol, netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort))
}

// Capture notes every IP packet that arrives in a namespace, before any rule there
// sees it, or every one that leaves, after all rules have.
type Capture struct {
	leaving bool
	except  []int // numbers of links

	mu      sync.Mutex
	packets []Packet
	more    chan struct{} // closed and replaced when a packet comes
}

// NewCapture begins to note what arrives on any link of a namespace.
func NewCapture(t testing.TB, ns *nstest.Namespace) *Capture {
	t.Helper()
	c := &Capture{}
	c.begin(t, ns)
	return c
}

// NewLeavingCapture begins to note what leaves by any link of a namespace but some:
// what gets to a machine that the test cannot look into.
func NewLeavingCapture(t testing.TB, ns *nstest.Namespace, except ...string) *Capture {
	t.Helper()
	c := &Capture{leaving: true}
	c.begin(t, ns, except...)
	return c
}

func (c *Capture) begin(t testing.TB, ns *nstest.Namespace, except ...string) {
	t.Helper()
	c.more = make(chan struct{})
	all := int(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL)))
	fd, err := -1, error(nil)
	ns.Do(t, func() {
		// Without a link layer (SOCK_DGRAM) a packet begins with its IP header.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all)
	})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	}
	if err != nil {
		t.Fatalf("capture packets: %v", err)
	}
	for _, name := range except {
		link, err := unix.NewIfreq(name)
		if err == nil {
			err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, link)
		}
		if err != nil {
			t.Fatalf("find link %q: %v", name, err)
		}
		c.except = append(c.except, int(link.Uint32()))
	}
	file := os.NewFile(uintptr(fd), "packets")
	t.Cleanup(func() { file.Close() })
	conn, err := file.SyscallConn()
	if err != nil {
		t.Fatalf("capture packets: %v", err)
	}
	go func() {
		for conn.Read(func(fd uintptr) bool { return c.read(int(fd)) }) == nil {
		}
	}()
}

// read notes one packet. It reports whether there was one.
func (c *Capture) read(fd int) bool {
	var buf [256]byte
	n, from, err := unix.Recvfrom(fd, buf[:], 0)
	if err == unix.EAGAIN {
		return false
	}
	link, ok := from.(*unix.SockaddrLinklayer)
	if err != nil || !ok || (link.Pkttype == unix.PACKET_OUTGOING) != c.leaving || slices.Contains(c.except, link.Ifindex) {
		return true
	}
	if p, ok := parse(buf[:n]); ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.packets = append(c.packets, p)
		close(c.more)
		c.more = make(chan struct{})
	}
	return true
}

// parse reads the headers of an IP packet (RFC 791 section 3.1, RFC 8200 section 3;
// extension headers are not looked behind).
func parse(b []byte) (p Packet, ok bool) {
	var rest []byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		p = Packet{Src: netip.AddrFrom4([4]byte(b[12:16])), Dst: netip.AddrFrom4([4]byte(b[16:20])), Protocol: int(b[9])}
		rest = b[min(4*int(b[0]&0xf), len(b)):]
	case len(b) >= 40 && b[0]>>4 == 6:
		p = Packet{Src: netip.AddrFrom16([16]byte(b[8:24])), Dst: netip.AddrFrom16([16]byte(b[24:40])), Protocol: int(b[6])}
		rest = b[40:]
	default:
		return Packet{}, false
	}
	switch {
	case (p.Protocol == TCP || p.Protocol == UDP) && len(rest) >= 4:
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
	case p.Protocol == ICMP && len(rest) >= 1:
		p.DstPort = uint16(rest[0])
	}
	return p, true
}

// Find returns the packets that match, of those that have arrived.
func (c *Capture) Find(match func(Packet) bool) []Packet {
	found, _ := c.find(match)
	return found
}

func (c *Capture) find(match func(Packet) bool) ([]Packet, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []Packet
	for _, p := range c.packets {
		if match(p) {
			found = append(found, p)
		}
	}
	return found, c.more
}

// Forget forgets what has arrived so far.
func (c *Capture) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.packets = nil
}

// Await waits until a packet that matches has arrived. A packet that went the same
// way before it has arrived then, too, or never will.
func (c *Capture) Await(t testing.TB, what string, match func(Packet) bool) {
	t.Helper()
	timeout := time.After(arriveWithin)
	for {
		found, more := c.find(match)
		if len(found) > 0 {
			return
		}
		select {
		case <-more:
		case <-timeout:
			all := c.Find(func(Packet) bool { return true })
			t.Fatalf("%s has not arrived after %s; there came %v", what, arriveWithin, all)
		}
	}
}

package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/ipam"
)

const (
	// Port is the UDP port that guests send to and listen at.
	Port = 7777
	// mark begins what guests send; the app of the sender follows.
	mark = "zwrm-crash:"
	// pause is the time between two rounds of packets.
	pause = 3 * time.Millisecond
	// headerSize is that of struct virtio_net_hdr, which comes before each frame.
	headerSize = 10
)

// Guest is a machine behind a TAP.
type Guest struct {
	App     string
	Address netip.Addr
	// Breach is called with the app of a sender that must not reach this guest.
	Breach func(app string)

	friends atomic.Int64
	mu      sync.Mutex
	targets []netip.Addr
}

// Friends returns how many packets of the guest's own app have come.
func (g *Guest) Friends() int64 { return g.friends.Load() }

// Aim has the guest send to these addresses from now on.
func (g *Guest) Aim(targets ...netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.targets = targets
}

// Open opens a TAP in the network namespace of the calling thread, as a VMM does. Whoever
// may would make one that is not there, so the thread loses the right to, for good.
func Open(name string) (*os.File, error) {
	if err := makeNone(); err != nil {
		return nil, err
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open TAP %q: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// makeNone takes CAP_NET_ADMIN from the calling thread. A TAP that is root's can be
// opened without it.
func makeNone() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	sets[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}

// Run sends and receives until the file is closed or the link deleted; the caller closes
// the file then. That the link is down for a while is no reason to stop.
func (g *Guest) Run(tap *os.File) {
	received := make(chan struct{})
	go func() {
		defer close(received)
		g.receive(tap)
	}()
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		select {
		case <-received:
			return
		case <-ticker.C:
		}
		g.mu.Lock()
		targets := g.targets
		g.mu.Unlock()
		for _, to := range targets {
			// What is written to a link that is down is lost. That one was deleted shows
			// here for sure: a reader is woken before it can see it (drivers/net/tun.c
			// tun_detach_all), and may go on waiting.
			if _, err := tap.Write(g.packet(to)); gone(err) {
				return
			}
		}
	}
}

func (g *Guest) receive(tap *os.File) {
	buf := make([]byte, 1<<16)
	for {
		n, err := tap.Read(buf)
		switch {
		case gone(err):
			return
		case err != nil: // the link is down
			time.Sleep(pause)
		case n > headerSize+14:
			if answer := g.handle(buf[headerSize:n]); answer != nil {
				_, _ = tap.Write(answer)
			}
		}
	}
}

// gone reports whether a file was closed or its link deleted (drivers/net/tun.c).
func gone(err error) bool { return errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EBADFD) }

// handle looks at a frame, and returns what to answer.
func (g *Guest) handle(frame []byte) []byte {
	packet := frame[14:]
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case kind == unix.ETH_P_ARP && len(packet) >= 28 && packet[7] == 1 && [4]byte(packet[24:]) == g.Address.As4():
		return g.arp(packet)
	case kind == unix.ETH_P_IP && len(packet) > 28 && packet[9] == unix.IPPROTO_UDP:
		app, ours := strings.CutPrefix(string(packet[28:]), mark)
		switch {
		case !ours:
		case app == g.App:
			g.friends.Add(1)
		default:
			g.Breach(app)
		}
	}
	return nil
}

// arp returns the answer to a request (RFC 826).
func (g *Guest) arp(request []byte) []byte {
	mac := ipam.MACOf(g.Address)
	out := ethernet(mac, ipam.MAC(request[8:14]), unix.ETH_P_ARP)
	out = append(out, 0, 1, 8, 0, 6, 4, 0, 2)
	out = append(append(out, mac[:]...), g.Address.AsSlice()...)
	return append(out, request[8:18]...)
}

// packet returns a UDP datagram with the app's name (RFC 791, RFC 768).
func (g *Guest) packet(to netip.Addr) []byte {
	out := ethernet(ipam.MACOf(g.Address), ipam.GatewayMAC(), unix.ETH_P_IP)
	text := mark + g.App
	at := len(out)
	out = append(out, 0x45, 0)
	out = binary.BigEndian.AppendUint16(out, uint16(28+len(text)))
	out = append(out, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0)
	out = append(append(out, g.Address.AsSlice()...), to.AsSlice()...)
	var sum uint32
	for i := at; i < len(out); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(out[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(out[at+10:], ^uint16(sum>>16+sum))
	for _, field := range []int{Port, Port, 8 + len(text), 0} {
		out = binary.BigEndian.AppendUint16(out, uint16(field))
	}
	return append(out, text...)
}

// ethernet returns an empty struct virtio_net_hdr and an Ethernet header.
func ethernet(from, to ipam.MAC, kind uint16) []byte {
	out := append(make([]byte, headerSize), to[:]...)
	return binary.BigEndian.AppendUint16(append(out, from[:]...), kind)
}

package zwrmtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/icmp"
	"zwrm/internal/host/nstest"
)

// Service answers everybody with the address that it sees the question come from.
type Service struct {
	mu   sync.Mutex
	seen map[question]bool
}

// question is who asked whom, and at which port.
type question struct {
	port     string // as in "tcp/80"
	from, to netip.Addr
}

// Serve serves ports, as in "tcp/80" and "udp/53", on every address of a namespace
// until the test ends.
func Serve(t testing.TB, ns *nstest.Namespace, ports ...string) *Service {
	t.Helper()
	s := &Service{seen: map[question]bool{}}
	for _, port := range ports {
		network, number, _ := strings.Cut(port, "/")
		address := "0.0.0.0:" + number
		var closer io.Closer
		var err error
		ns.Do(t, func() {
			switch network {
			case "tcp":
				var listener net.Listener
				if listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp4", address); err == nil {
					closer = listener
					go s.accept(port, listener)
				}
			case "udp":
				var conn net.PacketConn
				if conn, err = (&net.ListenConfig{Control: tellAddress}).ListenPacket(t.Context(), "udp4", address); err == nil {
					closer = conn
					go s.answer(port, conn.(*net.UDPConn))
				}
			default:
				err = errors.New("neither tcp nor udp")
			}
		})
		if err != nil {
			t.Fatalf("serve %s: %v", port, err)
		}
		t.Cleanup(func() { closer.Close() })
	}
	return s
}

// tellAddress has the kernel tell to which of its addresses a datagram came. The
// answer must come from there, and the kernel would take the first that fits.
func tellAddress(_, _ string, conn syscall.RawConn) error {
	var err error
	if e := conn.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1) }); e != nil {
		return e
	}
	return err
}

func (s *Service) accept(port string, listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // closed
		}
		from, to := conn.RemoteAddr().(*net.TCPAddr).AddrPort(), conn.LocalAddr().(*net.TCPAddr).AddrPort()
		s.note(question{port, from.Addr(), to.Addr()})
		_, _ = io.WriteString(conn, from.String())
		_ = conn.Close()
	}
}

func (s *Service) answer(port string, conn *net.UDPConn) {
	var buf, info [64]byte
	for {
		_, n, _, from, err := conn.ReadMsgUDPAddrPort(buf[:], info[:])
		if err != nil {
			return // closed
		}
		messages, err := unix.ParseSocketControlMessage(info[:n])
		if err != nil || len(messages) == 0 || len(messages[0].Data) < unix.SizeofInet4Pktinfo {
			continue
		}
		to := [4]byte(messages[0].Data[8:]) // ipi_addr of struct in_pktinfo (ip(7))
		s.note(question{port, from.Addr(), netip.AddrFrom4(to)})
		_, _, _ = conn.WriteMsgUDPAddrPort([]byte(from.String()), unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: to}), from)
	}
}

func (s *Service) note(q question) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[q] = true
}

// Saw reports whether anything came from one address to another and a port, as in
// "tcp/80".
func (s *Service) Saw(port string, from, to netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[question{port, from, to}]
}

// Forget forgets who has asked so far.
func (s *Service) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.seen)
}

// Askers returns everybody who has asked at a port, as in "tcp/80".
func (s *Service) Askers(port string) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []netip.Addr
	for q := range s.seen {
		if q.port == port {
			all = append(all, q.from)
		}
	}
	return all
}

// Ask asks a Service at "tcp" or "udp" and returns the address that it saw the
// question come from.
func Ask(t testing.TB, ns *nstest.Namespace, network string, to netip.AddrPort, within time.Duration) (netip.Addr, error) {
	t.Helper()
	var conn net.Conn
	var err error
	end := time.Now().Add(within)
	ns.Do(t, func() { conn, err = (&net.Dialer{Deadline: end}).DialContext(t.Context(), network+"4", to.String()) })
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(end); err != nil {
		return netip.Addr{}, err
	}
	if network == "udp" {
		if _, err := conn.Write([]byte("?")); err != nil {
			return netip.Addr{}, err
		}
	}
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	if err != nil {
		return netip.Addr{}, err
	}
	seen, err := netip.ParseAddrPort(string(buf[:n]))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("answer %q: %w", buf[:n], err)
	}
	return seen.Addr(), nil
}

// Ping asks an address for an answer by ICMP echo.
func Ping(t testing.TB, ns *nstest.Namespace, to netip.Addr, within time.Duration) (err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	ns.Do(t, func() { err = icmp.Echo(ctx, to) })
	return err
}

package zwrmtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/nstest"
)

const (
	sendEvery = 2 * time.Millisecond
	// inFlight is how many packets are on their way at most. Four streams together
	// have fewer than the queue of a TAP holds, which is 256, so that none is lost
	// because a busy machine is late.
	inFlight = 50
	// recordSize is that of a packet's payload, which begins with its number: as much
	// as a segment of TCP has with timestamps. The kernel tells by the bytes how many
	// segments a receiver had already.
	recordSize = 1448
)

// Stream is a flow of numbered packets that are sent back: 500 a second, by UDP or by
// one TCP connection. It runs until Lost is called, and knows of each packet whether
// it came back.
type Stream struct {
	name     string
	out      net.Conn
	in       io.Reader
	credit   chan struct{} // has room for each packet in flight
	end      chan struct{}
	work     sync.WaitGroup
	sent     uint64 // written by the sender
	returned atomic.Uint64
	failed   atomic.Pointer[error]
	before   resent // when it began
}

// resent is how many segments a TCP connection has sent again, and how many of these
// the receiver had already.
type resent struct{ all, late uint32 }

// NewStream begins to send from one namespace to another, which sends back. The
// network is "tcp" or "udp"; at the port nobody else listens.
func NewStream(t testing.TB, network string, from, to *nstest.Namespace, port netip.AddrPort) *Stream {
	t.Helper()
	sendBack(t, network, to, port)
	var conn net.Conn
	var err error
	from.Do(t, func() {
		conn, err = (&net.Dialer{Timeout: arriveWithin}).DialContext(t.Context(), network+"4", port.String())
	})
	if err != nil {
		t.Fatalf("connect by %s with %s: %v", network, port, err)
	}
	t.Cleanup(func() { conn.Close() })
	return Through(t, network+" to "+port.String(), conn, conn)
}

// Through begins to send by a connection, to somebody who sends on what comes, in the
// end to in. The caller closes both when the test ends.
func Through(t testing.TB, name string, out net.Conn, in io.Reader) *Stream {
	t.Helper()
	s := &Stream{name: name, out: out, in: in, credit: make(chan struct{}, inFlight), end: make(chan struct{})}
	s.before = s.resent(t) // of the handshake, where nobody says what was late
	s.work.Go(s.send)
	go s.receive()
	return s
}

// sendBack sends back what comes to a port, until the test ends.
func sendBack(t testing.TB, network string, ns *nstest.Namespace, port netip.AddrPort) {
	t.Helper()
	var listener io.Closer
	var err error
	ns.Do(t, func() {
		if network == "udp" {
			var conn *net.UDPConn
			if conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(port)); err == nil {
				listener = conn
				go func() {
					var buf [recordSize]byte
					for {
						n, from, err := conn.ReadFromUDPAddrPort(buf[:])
						if err != nil {
							return // closed
						}
						_, _ = conn.WriteToUDPAddrPort(buf[:n], from) // the sender misses what is lost here
					}
				}()
			}
			return
		}
		var tcp *net.TCPListener
		if tcp, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(port)); err == nil {
			listener = tcp
			go func() {
				if conn, err := tcp.Accept(); err == nil {
					defer conn.Close()
					_, _ = io.Copy(conn, conn)
				}
			}()
		}
	})
	if err != nil {
		t.Fatalf("send back what comes to %s: %v", port, err)
	}
	t.Cleanup(func() { listener.Close() })
}

func (s *Stream) send() {
	ticker := time.NewTicker(sendEvery)
	defer ticker.Stop()
	var record [recordSize]byte
	for {
		select {
		case <-ticker.C:
		case <-s.end:
			return
		}
		select {
		case s.credit <- struct{}{}:
		case <-s.end:
			return
		}
		binary.BigEndian.PutUint64(record[:], s.sent)
		if _, err := s.out.Write(record[:]); err != nil {
			s.fail(err)
			return
		}
		s.sent++
	}
}

// receive counts what comes back. It must be in order: on the way of a stream there
// is one queue only.
func (s *Stream) receive() {
	var record [recordSize]byte
	next := uint64(0)
	for {
		if _, err := io.ReadFull(s.in, record[:]); err != nil {
			s.fail(err)
			return
		}
		number := binary.BigEndian.Uint64(record[:])
		if number < next {
			s.fail(fmt.Errorf("packet %d came back after packet %d", number, next-1))
			return
		}
		next = number + 1
		s.returned.Add(1)
		<-s.credit
	}
}

func (s *Stream) fail(err error) {
	if !errors.Is(err, net.ErrClosed) {
		s.failed.CompareAndSwap(nil, &err)
	}
}

// Flows waits until so many more packets have come back.
func (s *Stream) Flows(t testing.TB, when string, packets uint64) {
	t.Helper()
	if err := s.Try(packets, endWithin); err != nil {
		t.Fatalf("%s: stream %s: %v", when, s.name, err)
	}
}

// Try is Flows for a stream that may be broken.
func (s *Stream) Try(packets uint64, within time.Duration) error {
	want := s.returned.Load() + packets
	for start := time.Now(); s.returned.Load() < want; time.Sleep(sendEvery) {
		if err := s.failed.Load(); err != nil {
			return *err
		}
		if time.Since(start) > within {
			return fmt.Errorf("%d packets came back, want %d", s.returned.Load(), want)
		}
	}
	return nil
}

// Lost ends the stream and reports an error for each packet that was lost. What TCP
// sent again counts, unless the receiver said that it had it already: that was only
// late.
func (s *Stream) Lost(t testing.TB) {
	t.Helper()
	close(s.end)
	s.work.Wait()
	for start := time.Now(); s.returned.Load() < s.sent && time.Since(start) < arriveWithin; time.Sleep(sendEvery) {
	}
	if err := s.failed.Load(); err != nil {
		t.Errorf("stream %s broke: %v", s.name, *err)
	}
	lost := s.sent - s.returned.Load()
	again := s.resent(t)
	// The receiver may say a moment later that it had one already.
	for start := time.Now(); again.all > again.late && time.Since(start) < arriveWithin; time.Sleep(sendEvery) {
		again = s.resent(t)
	}
	t.Logf("stream %s: %d packets sent, %d lost; %d sent again, %d of them for nothing", s.name, s.sent, lost, again.all, again.late)
	if lost > 0 || again.all > again.late {
		t.Errorf("stream %s: %d of %d packets were lost, %d had to be sent again", s.name, lost, s.sent, again.all-again.late)
	}
}

// resent returns what TCP has sent again since the stream began (RFC 2883).
func (s *Stream) resent(t testing.TB) resent {
	t.Helper()
	conn, ok := s.out.(*net.TCPConn)
	if !ok {
		return resent{}
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	if e := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); e != nil || err != nil {
		t.Fatalf("read TCP_INFO: %v, %v", e, err)
	}
	return resent{info.Total_retrans - s.before.all, info.Dsack_dups - s.before.late}
}

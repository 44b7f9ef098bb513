package netlink

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// answered returns a Conn whose kernel says what the test says, a datagram for each,
// and then nothing.
func answered(t *testing.T, datagrams ...[]byte) *Conn {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := &Conn{fd: ends[0], in: make([]byte, replySize)}
	t.Cleanup(func() {
		_ = c.Close()
		_ = unix.Close(ends[1])
	})
	timeout := unix.Timeval{Usec: 1}
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	for _, d := range datagrams {
		if err := unix.Sendto(ends[1], d, 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// answer returns a message of the kernel.
func answer(kind, flags uint16, seq uint32, payload []byte) []byte {
	m := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(payload)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = binary.NativeEndian.AppendUint16(m, flags)
	m = binary.NativeEndian.AppendUint32(m, seq)
	return append(append(m, 0, 0, 0, 0), payload...)
}

func outcomeOf(n unix.Errno) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(-int32(n))) }

// TestUnanswered: a request that has no answer has failed, whatever else was answered.
func TestUnanswered(t *testing.T) {
	ok := answer(unix.NLMSG_ERROR, 0, 1, outcomeOf(0))
	for name, test := range map[string]struct {
		answers [][]byte
		want    []error
	}{
		"both":             {[][]byte{ok, answer(unix.NLMSG_ERROR, 0, 2, outcomeOf(unix.EPERM))}, []error{nil, unix.EPERM}},
		"in one datagram":  {[][]byte{append(ok, answer(unix.NLMSG_ERROR, 0, 2, outcomeOf(0))...)}, []error{nil, nil}},
		"the first alone":  {[][]byte{ok}, []error{nil, unix.EAGAIN}},
		"the first twice":  {[][]byte{ok, ok}, []error{nil, errNoAnswer}},
		"of another":       {[][]byte{answer(unix.NLMSG_ERROR, 0, 7, outcomeOf(0))}, []error{unix.EAGAIN, unix.EAGAIN}},
		"half a message":   {[][]byte{ok[:10]}, []error{unix.EAGAIN, unix.EAGAIN}},
		"without a number": {[][]byte{ok, answer(unix.NLMSG_ERROR, 0, 2, nil)}, []error{nil, errNoAnswer}},
	} {
		t.Run(name, func(t *testing.T) {
			requests := []*Request{NewRequest(1, 0, nil), NewRequest(2, 0, nil)}
			_ = answered(t, test.answers...).Do(requests...)
			for i, r := range requests {
				if !errors.Is(r.Err(), test.want[i]) || test.want[i] == nil && r.Err() != nil {
					t.Errorf("request %d: %v, want %v", i, r.Err(), test.want[i])
				}
			}
		})
	}
}

// FuzzConn: whatever the kernel answers, both ways of asking come to an end, and no
// request counts as carried out that the kernel did not say so of.
func FuzzConn(f *testing.F) {
	ok := answer(unix.NLMSG_ERROR, 0, 1, outcomeOf(0))
	f.Add(ok, answer(unix.NLMSG_ERROR, 0, 2, outcomeOf(unix.EPERM)))
	f.Add(ok, ok)
	f.Add(answer(unix.RTM_NEWLINK, unix.NLM_F_MULTI, 1, make([]byte, unix.SizeofIfInfomsg)), answer(unix.NLMSG_DONE, unix.NLM_F_MULTI, 1, outcomeOf(0)))
	f.Add(answer(unix.RTM_NEWLINK, unix.NLM_F_DUMP_INTR, 1, nil), answer(unix.NLMSG_DONE, 0, 1, nil))
	f.Add([]byte{255, 255, 255, 255, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}, []byte{1})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		if len(first) > replySize || len(second) > replySize {
			return // more than the kernel says at once
		}
		requests := []*Request{NewRequest(1, 0, nil), NewRequest(2, 0, nil)}
		_ = answered(t, first, second).Do(requests...)
		said := map[uint32]bool{}
		for _, datagram := range [][]byte{first, second} {
			for m := range messages(datagram) {
				said[m.seq] = said[m.seq] || m.kind == unix.NLMSG_ERROR && m.outcome() == nil
			}
		}
		for i, r := range requests {
			if r.Err() == nil && !said[uint32(i+1)] {
				t.Errorf("request %d counts as carried out", i)
			}
		}
		for _, flags := range []uint16{0, unix.NLM_F_DUMP} {
			_ = answered(t, first, second).Query(NewRequest(1, flags, nil), func([]byte) {})
		}
	})
}

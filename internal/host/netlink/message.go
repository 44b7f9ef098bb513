package netlink

import (
	"encoding/binary"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// attributeMask takes the flags NLA_F_NESTED and NLA_F_NET_BYTEORDER off an
// attribute's type.
const attributeMask = 1<<14 - 1

// Attributes goes through the attributes in b. The values are parts of b. It
// ends at the first one that does not fit: what a kernel sends always does.
func Attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			length := int(binary.NativeEndian.Uint16(b))
			if length < unix.SizeofRtAttr || length > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&attributeMask, b[unix.SizeofRtAttr:length]) {
				return
			}
			b = b[min(align(length), len(b)):]
		}
	}
}

// Uint32 returns the number that an attribute or a fixed part holds at the given
// offset, 0 when it is shorter than that.
func Uint32(b []byte, offset int) uint32 {
	if len(b) < offset+4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b[offset:])
}

// Text returns the string before the final NUL. It is a part of b.
func Text(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == 0 {
		return b[:n-1]
	}
	return b
}

// message is one message as it was received; the payload is a part of the buffer.
type message struct {
	kind, flags uint16
	seq, port   uint32
	payload     []byte
}

// messages goes through the messages of one datagram.
func messages(b []byte) iter.Seq[message] {
	return func(yield func(message) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			length := int(binary.NativeEndian.Uint32(b))
			if length < unix.SizeofNlMsghdr || length > len(b) {
				return
			}
			m := message{
				kind:    binary.NativeEndian.Uint16(b[4:]),
				flags:   binary.NativeEndian.Uint16(b[6:]),
				seq:     binary.NativeEndian.Uint32(b[8:]),
				port:    binary.NativeEndian.Uint32(b[12:]),
				payload: b[unix.SizeofNlMsghdr:length],
			}
			if !yield(m) {
				return
			}
			b = b[min(align(length), len(b)):]
		}
	}
}

// outcome reads NLMSG_ERROR and NLMSG_DONE: an error number, 0 for success, and
// behind it the kernel's words on it, where it has any (NLMSGERR_ATTR_MSG).
func (m message) outcome() error {
	if m.kind == unix.NLMSG_ERROR && len(m.payload) < 4 {
		return errNoAnswer
	}
	number := -int32(Uint32(m.payload, 0))
	if number == 0 {
		return nil
	}
	errno := unix.Errno(number)
	if m.kind == unix.NLMSG_ERROR && m.flags&unix.NLM_F_ACK_TLVS != 0 && len(m.payload) > 4+unix.SizeofNlMsghdr {
		for attribute, value := range Attributes(m.payload[4+unix.SizeofNlMsghdr:]) {
			if attribute == unix.NLMSGERR_ATTR_MSG {
				return fmt.Errorf("%w (%s)", errno, Text(value))
			}
		}
	}
	return errno
}

func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

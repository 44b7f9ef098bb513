package netlink

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Request is one netlink message under construction: a header, the fixed part
// that belongs to its type, and attributes. The methods that add attributes
// return nothing, since a Request of ours is always well-formed.
type Request struct {
	buf []byte
	err error
}

// NewRequest returns a message of the given type (RTM_*, or subsystem and
// IPCTNL_MSG_*) with the fixed part that the type demands. NLM_F_REQUEST is set.
func NewRequest(kind, flags uint16, fixed []byte) *Request {
	r := &Request{buf: make([]byte, unix.SizeofNlMsghdr, 256)}
	binary.NativeEndian.PutUint16(r.buf[4:], kind)
	binary.NativeEndian.PutUint16(r.buf[6:], flags|unix.NLM_F_REQUEST)
	r.Raw(fixed)
	return r
}

// NewLink returns a message about a link (struct ifinfomsg). Index 0 leaves it
// to the attribute IFLA_IFNAME to say which. Of the flags (IFF_*) those in mask
// change.
func NewLink(kind, flags uint16, index int, up, mask uint32) *Request {
	var fixed [unix.SizeofIfInfomsg]byte
	binary.NativeEndian.PutUint32(fixed[4:], uint32(index))
	binary.NativeEndian.PutUint32(fixed[8:], up)
	binary.NativeEndian.PutUint32(fixed[12:], mask)
	return NewRequest(kind, flags, fixed[:])
}

// NewAddress returns a message about an IPv4 address of a link (struct
// ifaddrmsg).
func NewAddress(kind, flags uint16, index int, address netip.Prefix) *Request {
	var fixed [unix.SizeofIfAddrmsg]byte
	fixed[0] = unix.AF_INET
	fixed[1] = byte(address.Bits())
	binary.NativeEndian.PutUint32(fixed[4:], uint32(index))
	r := NewRequest(kind, flags, fixed[:])
	r.Bytes(unix.IFA_LOCAL, address.Addr().AsSlice())
	r.Bytes(unix.IFA_ADDRESS, address.Addr().AsSlice())
	return r
}

// Payload returns the message behind its header: what the receiver reads.
func (r *Request) Payload() []byte { return r.buf[unix.SizeofNlMsghdr:] }

// Err returns how the kernel answered: nil once the request was carried out.
func (r *Request) Err() error { return r.err }

// Refuse has Err return an error for a request that is not going to be sent.
func (r *Request) Refuse(err error) { r.err = err }

// Bytes adds an attribute with the given value.
func (r *Request) Bytes(attribute uint16, value []byte) {
	r.header(attribute, len(value))
	r.buf = append(r.buf, value...)
	r.pad()
}

// Raw adds the fixed part that some nested messages begin with.
func (r *Request) Raw(fixed []byte) {
	r.buf = append(r.buf, fixed...)
	r.pad()
}

// Text adds an attribute with a string and its final NUL.
func (r *Request) Text(attribute uint16, value string) {
	r.header(attribute, len(value)+1)
	r.buf = append(r.buf, value...)
	r.buf = append(r.buf, 0)
	r.pad()
}

// Uint32 adds an attribute with a number in the order of the host's bytes.
func (r *Request) Uint32(attribute uint16, value uint32) {
	r.header(attribute, 4)
	r.buf = binary.NativeEndian.AppendUint32(r.buf, value)
}

// Nest adds an attribute that consists of those that fill adds.
func (r *Request) Nest(attribute uint16, fill func()) {
	start := len(r.buf)
	r.header(attribute|unix.NLA_F_NESTED, 0)
	fill()
	binary.NativeEndian.PutUint16(r.buf[start:], uint16(len(r.buf)-start))
}

func (r *Request) header(attribute uint16, length int) {
	r.buf = binary.NativeEndian.AppendUint16(r.buf, uint16(unix.SizeofRtAttr+length))
	r.buf = binary.NativeEndian.AppendUint16(r.buf, attribute)
}

func (r *Request) pad() {
	for len(r.buf)%unix.NLMSG_ALIGNTO != 0 {
		r.buf = append(r.buf, 0)
	}
}

// isDump reports whether the answer is a list of messages, ended by NLMSG_DONE.
func (r *Request) isDump() bool {
	return binary.NativeEndian.Uint16(r.buf[6:])&unix.NLM_F_DUMP == unix.NLM_F_DUMP
}

// seal makes the message ready to be sent.
func (r *Request) seal(seq uint32, flags uint16) []byte {
	binary.NativeEndian.PutUint32(r.buf, uint32(len(r.buf)))
	binary.NativeEndian.PutUint16(r.buf[6:], binary.NativeEndian.Uint16(r.buf[6:])|flags)
	binary.NativeEndian.PutUint32(r.buf[8:], seq)
	return r.buf
}

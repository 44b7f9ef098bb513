package nfnetlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// bufferSize is that of each direction of the socket, in bytes. A transaction is
	// sent at once: 65,536 elements with comments take 8 MiB.
	bufferSize = 16 << 20
	// messageSize is how much is read at once, in bytes. The kernel fills up to 32 KiB
	// if the reader has shown room for it, and for each piece of a set it counts
	// through all elements before.
	messageSize = 64 << 10
	// answerWithin bounds the wait for an answer. The kernel has it ready when a
	// request was sent; the bound is for one that got lost.
	answerWithin = 30 * time.Second
	// askTries bounds how often a question is asked again whose answer was broken off
	// or lost.
	askTries = 20
)

// Socket is the part of a *netlink.Conn that is used here.
type Socket interface {
	SendMessages(messages []netlink.Message) ([]netlink.Message, error)
	Receive() ([]netlink.Message, error)
	SetReadDeadline(t time.Time) error
	// Discard takes in and forgets what the kernel has answered until now.
	Discard() error
	Close() error
}

// socket adds what a *netlink.Conn lacks.
type socket struct{ *netlink.Conn }

// Discard does not wait: the kernel has answered a request when its send returns.
// A wait for silence would take a stop of this process for one.
func (s socket) Discard() error {
	conn, err := s.SyscallConn()
	if err == nil {
		err = s.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return err
	}
	var failed error
	buf := make([]byte, 1) // the rest of a message goes with it
	err = conn.Read(func(fd uintptr) bool {
		for failed == nil || errors.Is(failed, unix.ENOBUFS) || errors.Is(failed, unix.EINTR) {
			_, _, failed = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
		}
		return true
	})
	if errors.Is(failed, unix.EAGAIN) {
		failed = nil
	}
	return errors.Join(err, failed)
}

// Dial opens a socket in the network namespace of the calling thread. It is closed
// on exec, so that no program that was started keeps a table owned.
func Dial() (Socket, error) {
	s, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{MessageBufferSize: messageSize})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.SetReadBuffer(bufferSize), s.SetWriteBuffer(bufferSize)); err != nil {
		return nil, errors.Join(fmt.Errorf("raise the socket's buffers: %w", err), s.Close())
	}
	return socket{s}, nil
}

// Conn speaks to nf_tables. It is not safe for concurrent use.
type Conn struct {
	socket Socket
	port   uint32
}

// New returns a Conn on the socket.
func New(s Socket) *Conn { return &Conn{socket: s} }

// Port returns the socket's address, by which the kernel names a table's owner. It
// is 0 before the first request.
func (c *Conn) Port() uint32 { return c.port }

// Close closes the socket. Tables that it owns have no owner then.
func (c *Conn) Close() error { return c.socket.Close() }

// Commit makes all changes of the batch or none. Only nil says which: an error may
// come from the way back, after the kernel has made them.
func (c *Conn) Commit(b Batch) error { return c.transact(b, true) }

// Check asks the kernel whether it would make the changes. Without its end a batch
// is checked and thrown away (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c),
// which is how `nft --check` works.
func (c *Conn) Check(b Batch) error {
	return insist(func() error { return c.transact(b, false) })
}

func (c *Conn) transact(b Batch, commit bool) error {
	if b.err != nil {
		return fmt.Errorf("encode: %w", b.err)
	}
	if len(b.messages) == 0 {
		return nil
	}
	mark := func(kind netlink.HeaderType) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request}, Data: header(unix.NFPROTO_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)}
	}
	// Every request that fails is answered. One answer is asked for besides, that to
	// the last request, so that the answers fit any buffer.
	b.messages[len(b.messages)-1].Header.Flags |= netlink.Acknowledge
	messages := append([]netlink.Message{mark(unix.NFNL_MSG_BATCH_BEGIN)}, b.messages...)
	if commit {
		messages = append(messages, mark(unix.NFNL_MSG_BATCH_END))
	}
	_, err := c.exchange(messages)
	return err
}

// get asks for what the kernel holds.
func (c *Conn) get(kind uint16, flags netlink.HeaderFlags, fill func(*netlink.AttributeEncoder)) (answer []netlink.Message, err error) {
	m, err := request(kind, flags, fill)
	if err != nil {
		return nil, err
	}
	err = insist(func() error {
		answer, err = c.exchange([]netlink.Message{m})
		return err
	})
	return answer, err
}

// insist asks what changes nothing again while the answer gets lost. What is read
// over several answers may have changed between them; that is the caller's to see.
func insist(ask func() error) error {
	var err error
	for range askTries {
		if err = ask(); !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
	}
	return fmt.Errorf("no answer to %d requests: %w", askTries, err)
}

// exchange sends messages and returns the answer. After an error it takes in the
// answers that may still come, which would be taken for those to the next request.
func (c *Conn) exchange(messages []netlink.Message) ([]netlink.Message, error) {
	if err := c.socket.SetReadDeadline(time.Now().Add(answerWithin)); err != nil {
		return nil, err
	}
	sent, err := c.socket.SendMessages(messages)
	if err != nil {
		return nil, errors.Join(err, c.socket.Discard())
	}
	c.port = sent[0].Header.PID
	answer, err := c.socket.Receive()
	if err != nil {
		return nil, errors.Join(err, c.socket.Discard())
	}
	return answer, nil
}

func request(kind uint16, flags netlink.HeaderFlags, fill func(*netlink.AttributeEncoder)) (netlink.Message, error) {
	attributes := netlink.NewAttributeEncoder()
	attributes.ByteOrder = binary.BigEndian
	fill(attributes)
	data, err := attributes.Encode()
	return netlink.Message{
		Header: netlink.Header{Type: Type(kind), Flags: netlink.Request | flags},
		Data:   append(header(unix.NFPROTO_INET, 0), data...),
	}, err
}

// Type returns the type of a message of nf_tables (NFT_MSG_*).
func Type(kind uint16) netlink.HeaderType {
	return unix.NFNL_SUBSYS_NFTABLES<<8 | netlink.HeaderType(kind)
}

// header is struct nfgenmsg (linux/netfilter/nfnetlink.h).
func header(family uint8, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

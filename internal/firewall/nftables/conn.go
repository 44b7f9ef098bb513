package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
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
	// quiet is how long a socket is silent that has nothing more to say.
	quiet = 10 * time.Millisecond
)

// socket is the part of a *netlink.Conn that is used here.
type socket interface {
	SendMessages(messages []netlink.Message) ([]netlink.Message, error)
	Receive() ([]netlink.Message, error)
	SetReadDeadline(t time.Time) error
	Close() error
}

// dial opens a socket in the network namespace of the calling thread. It is closed
// on exec, so that no VMM keeps the table owned after zwrmd's death.
func dial() (socket, error) {
	s, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{MessageBufferSize: messageSize})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.SetReadBuffer(bufferSize), s.SetWriteBuffer(bufferSize)); err != nil {
		return nil, errors.Join(fmt.Errorf("raise the socket's buffers: %w", err), s.Close())
	}
	return s, nil
}

// conn speaks to nf_tables. It is not safe for concurrent use.
type conn struct {
	socket socket
	port   uint32 // the socket's address, by which the kernel names a table's owner; 0 before the first request
}

// batch is the requests of one transaction.
type batch struct {
	messages []netlink.Message
	err      error // of the first request that could not be encoded
}

// add appends a request (NFT_MSG_*). The encoder refuses an attribute of 64 KiB or
// more, whose length would not fit its field.
func (b *batch) add(kind uint16, flags netlink.HeaderFlags, fill func(*netlink.AttributeEncoder)) {
	m, err := request(kind, flags, fill)
	if err != nil && b.err == nil {
		b.err = err
	}
	b.messages = append(b.messages, m)
}

func request(kind uint16, flags netlink.HeaderFlags, fill func(*netlink.AttributeEncoder)) (netlink.Message, error) {
	attributes := netlink.NewAttributeEncoder()
	attributes.ByteOrder = binary.BigEndian
	fill(attributes)
	data, err := attributes.Encode()
	return netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | netlink.HeaderType(kind), Flags: netlink.Request | flags},
		Data:   append(header(unix.NFPROTO_INET, 0), data...),
	}, err
}

// header is struct nfgenmsg (linux/netfilter/nfnetlink.h).
func header(family uint8, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

// commit makes all changes of the batch or none. Only nil says which: an error may
// come from the way back, after the kernel has made them.
func (c *conn) commit(b batch) error { return c.transact(b, true) }

// check asks the kernel whether it would make the changes. Without its end a batch
// is checked and thrown away (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c),
// which is how `nft --check` works.
func (c *conn) check(b batch) error { return c.transact(b, false) }

func (c *conn) transact(b batch, commit bool) error {
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
func (c *conn) get(kind uint16, flags netlink.HeaderFlags, fill func(*netlink.AttributeEncoder)) ([]netlink.Message, error) {
	m, err := request(kind, flags, fill)
	if err != nil {
		return nil, err
	}
	return c.exchange([]netlink.Message{m})
}

// exchange sends messages and returns the answer. After an error it takes in the
// answers that may still come, which would be taken for those to the next request.
func (c *conn) exchange(messages []netlink.Message) ([]netlink.Message, error) {
	if err := c.socket.SetReadDeadline(time.Now().Add(answerWithin)); err != nil {
		return nil, err
	}
	sent, err := c.socket.SendMessages(messages)
	if err != nil {
		return nil, errors.Join(err, c.drain())
	}
	c.port = sent[0].Header.PID
	answer, err := c.socket.Receive()
	if err != nil {
		return nil, errors.Join(err, c.drain())
	}
	return answer, nil
}

// drain reads the socket until it is quiet.
func (c *conn) drain() error {
	for end := time.Now().Add(answerWithin); time.Now().Before(end); {
		if err := c.socket.SetReadDeadline(time.Now().Add(quiet)); err != nil {
			return err
		}
		if _, err := c.socket.Receive(); errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
	}
	return errors.New("the kernel does not stop answering")
}

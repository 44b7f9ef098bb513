package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
)

const (
	// bufferSize holds what the kernel tells of a packet, in bytes: some 500 of them
	// per rule, and others on the host may trace packets of theirs.
	bufferSize = 4 << 20
	// messageSize is how much is read at once, in bytes, and so how much of a list the
	// kernel puts into one piece.
	messageSize = 64 << 10
	// answerWithin bounds the wait for an answer. The kernel has it ready when a
	// request was sent; the bound is for one that got lost.
	answerWithin = 10 * time.Second
)

// socket is the part of a *netlink.Conn that is used here.
type socket interface {
	SendMessages(messages []netlink.Message) ([]netlink.Message, error)
	Receive() ([]netlink.Message, error)
	SetReadDeadline(t time.Time) error
	Close() error
}

// conn speaks to nf_tables in the network namespace of the thread that dialled. A
// table with an owner is its socket's.
type conn struct {
	socket
	hook effect.Hook // of commit
}

func dial(groups uint32, hook effect.Hook) (*conn, error) {
	s, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: groups, MessageBufferSize: messageSize})
	if err != nil {
		return nil, fmt.Errorf("open a socket: %w", err)
	}
	if err := s.SetReadBuffer(bufferSize); err != nil {
		return nil, errors.Join(fmt.Errorf("raise the socket's buffer: %w", err), s.Close())
	}
	return &conn{s, hook}, nil
}

// request returns a message (NFT_MSG_*) about an object of a family (NFPROTO_*).
func request(kind uint16, family uint8, flags netlink.HeaderFlags, fill func(*netlink.AttributeEncoder)) (netlink.Message, error) {
	attributes := netlink.NewAttributeEncoder()
	attributes.ByteOrder = binary.BigEndian
	fill(attributes)
	data, err := attributes.Encode()
	return netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | netlink.HeaderType(kind), Flags: netlink.Request | flags},
		Data:   append(header(family, 0), data...),
	}, err
}

// header is struct nfgenmsg (linux/netfilter/nfnetlink.h).
func header(family uint8, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

// get asks for what the kernel holds.
func (c *conn) get(kind uint16, family uint8, flags netlink.HeaderFlags, fill func(*netlink.AttributeEncoder)) ([]netlink.Message, error) {
	m, err := request(kind, family, flags, fill)
	if err != nil {
		return nil, err
	}
	return c.exchange([]netlink.Message{m})
}

// commit makes all changes or none.
func (c *conn) commit(op effect.Op, changes []netlink.Message) error {
	mark := func(kind netlink.HeaderType) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request}, Data: header(unix.NFPROTO_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)}
	}
	// A request that fails is answered, and the last one.
	changes[len(changes)-1].Header.Flags |= netlink.Acknowledge
	batch := append([]netlink.Message{mark(unix.NFNL_MSG_BATCH_BEGIN)}, changes...)
	batch = append(batch, mark(unix.NFNL_MSG_BATCH_END))
	return effect.Do(c.hook, op, func() error {
		_, err := c.exchange(batch)
		return err
	})
}

// exchange sends messages and returns the answer. After an error others may be on
// their way, so only a request that is alone may fail and be followed by another.
func (c *conn) exchange(messages []netlink.Message) ([]netlink.Message, error) {
	if err := c.SetReadDeadline(time.Now().Add(answerWithin)); err != nil {
		return nil, err
	}
	if _, err := c.SendMessages(messages); err != nil {
		return nil, err
	}
	return c.Receive()
}

// each calls f for every attribute of a message.
func each(m netlink.Message, f func(*netlink.AttributeDecoder)) error {
	if len(m.Data) < 4 {
		return errors.New("a message of the kernel is too short")
	}
	a, err := netlink.NewAttributeDecoder(m.Data[4:]) // behind struct nfgenmsg
	if err != nil {
		return fmt.Errorf("decode a message of the kernel: %w", err)
	}
	a.ByteOrder = binary.BigEndian
	for a.Next() {
		f(a)
	}
	if err := a.Err(); err != nil {
		return fmt.Errorf("decode a message of the kernel: %w", err)
	}
	return nil
}

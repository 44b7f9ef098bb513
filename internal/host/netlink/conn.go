package netlink

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// MaxBatch is how many requests go into one datagram. Their answers wait in
	// the socket's receive buffer together (208 KiB by default, about 0.8 KiB of
	// it per answer); one that does not fit there is lost.
	MaxBatch = 64
	// replySize holds any single answer, dumpSize as much of a dump as the kernel
	// hands out at once (32 KiB, net/netlink/af_netlink.c netlink_dump).
	replySize = 8 << 10
	dumpSize  = 64 << 10
	// patience bounds the wait for an answer, in seconds. The kernel has answered
	// by the time that the request is sent, so this ends a wait for what was lost.
	patience = 10
)

// ErrInterrupted says that what a dump lists changed while it was read, so that
// it may be incomplete (NLM_F_DUMP_INTR).
var ErrInterrupted = errors.New("list changed while it was read")

// errNoAnswer marks requests that the kernel did not answer yet.
var errNoAnswer = errors.New("no answer")

// Conn is a netlink socket. It is safe for concurrent use; requests of several
// callers go one after the other.
//
// The socket blocks: the kernel carries a request out while it is sent, and no
// poller could shorten the wait for the kernel's own locks.
type Conn struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	in  []byte
	out []byte
}

// Dial opens a socket of the given protocol (NETLINK_ROUTE, NETLINK_NETFILTER)
// in the network namespace of the calling thread, where it stays.
func Dial(protocol int) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	c := &Conn{fd: fd, in: make([]byte, replySize)}
	// Connected to the kernel, the socket takes nothing from other processes.
	if err := unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("connect netlink socket: %w", err), c.Close())
	}
	timeout := unix.Timeval{Sec: patience}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return nil, errors.Join(fmt.Errorf("set timeout of netlink socket: %w", err), c.Close())
	}
	// Kernels before 4.20 lack some of these; they only explain less and list more.
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK} {
		_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, option, 1)
	}
	return c, nil
}

// Close closes the socket. Requests after that fail.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	fd := c.fd
	c.fd = -1 // the number may soon be that of somebody else's file
	return unix.Close(fd)
}

// Do carries requests out in order and returns the first error; Err of each has
// its own. A failed request does not hold up the next. Up to 64 go to the kernel
// in one datagram, which it works off within one system call: the process cannot
// be killed between them.
func (c *Conn) Do(requests ...*Request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for batch := range slices.Chunk(requests, MaxBatch) {
		c.batch(batch)
	}
	for _, r := range requests {
		if r.err != nil {
			return r.err
		}
	}
	return nil
}

// batch carries out the requests of one datagram and notes how each went.
func (c *Conn) batch(requests []*Request) {
	base := c.seq + 1
	c.out = c.out[:0]
	for _, r := range requests {
		c.seq++
		c.out = append(c.out, r.seal(c.seq, unix.NLM_F_ACK)...)
		r.err = errNoAnswer
	}
	err := c.send()
	for answered := 0; err == nil && answered < len(requests); {
		var datagram []byte
		if datagram, err = c.receive(); err != nil {
			break
		}
		for m := range messages(datagram) {
			i := m.seq - base // wraps around for answers to earlier requests
			if m.kind == unix.NLMSG_ERROR && i < uint32(len(requests)) {
				requests[i].err = m.outcome()
				answered++
			}
		}
	}
	for _, r := range requests {
		if errors.Is(r.err, errNoAnswer) && err != nil {
			r.err = err
		}
	}
}

// Query calls each with the payload of every message that answers the request:
// one, or a list if the request has NLM_F_DUMP. The payload is valid during the
// call only. ErrInterrupted may come after some calls; the list must be read anew.
func (c *Conn) Query(request *Request, each func(payload []byte)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	c.out = append(c.out[:0], request.seal(c.seq, 0)...)
	dump := request.isDump()
	if dump && len(c.in) < dumpSize {
		c.in = make([]byte, dumpSize)
	}
	if err := c.send(); err != nil {
		return err
	}
	interrupted := false
	for {
		datagram, err := c.receive()
		if err != nil {
			return err
		}
		for m := range messages(datagram) {
			if m.seq != c.seq {
				continue
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			if m.kind == unix.NLMSG_ERROR || m.kind == unix.NLMSG_DONE {
				if err := m.outcome(); err != nil || !interrupted {
					return err
				}
				return ErrInterrupted
			}
			each(m.payload)
			if !dump {
				return nil
			}
		}
	}
}

func (c *Conn) send() error {
	for {
		_, err := unix.Write(c.fd, c.out)
		if err == unix.EINTR {
			continue // the runtime's signals interrupt calls on sockets that have a timeout
		}
		if err != nil {
			return fmt.Errorf("send to kernel: %w", err)
		}
		return nil
	}
}

func (c *Conn) receive() ([]byte, error) {
	for {
		n, err := unix.Read(c.fd, c.in)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("receive from kernel: %w", err)
		}
		return c.in[:n], nil
	}
}

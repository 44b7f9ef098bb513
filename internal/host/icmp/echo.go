package icmp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"
)

// interval is the time from one request to the next.
const interval = 200 * time.Millisecond

// The types of RFC 792, page 14.
const (
	typeEchoReply   = 0
	typeEchoRequest = 8
)

// Echo sends echo requests to an IPv4 address until one is answered or ctx ends.
// An address without a route is an error at once; a request that does not get
// through is none yet, since the guest may answer ARP later. The process needs
// CAP_NET_RAW.
func Echo(ctx context.Context, address netip.Addr) error {
	if err := echo(ctx, address); err != nil {
		return fmt.Errorf("ping %s: %w", address, err)
	}
	return nil
}

func echo(ctx context.Context, address netip.Addr) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	conn, err := net.Dial("ip4:1", address.String()) // 1 is ICMP
	if err != nil {
		return err
	}
	defer conn.Close()
	// The deadline of the past ends a read that waits.
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()

	var last error
	id := uint16(rand.Uint32())
	for seq := uint16(0); ctx.Err() == nil; seq++ {
		if _, err := conn.Write(request(id, seq)); err != nil {
			last = err
		}
		answered, err := await(ctx, conn.(*net.IPConn), id)
		if answered {
			return nil
		}
		if err != nil {
			last = err
		}
	}
	if last != nil {
		return fmt.Errorf("no answer (%w): %w", last, context.Cause(ctx))
	}
	return fmt.Errorf("no answer: %w", context.Cause(ctx))
}

// await reads for one interval. The kernel hands every echo reply of the address
// to every raw socket; those with another id are somebody else's.
func await(ctx context.Context, conn *net.IPConn, id uint16) (answered bool, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(interval)); err != nil || ctx.Err() != nil {
		return false, err // what ended before the deadline was set will not end this one
	}
	var packet [128]byte
	for {
		n, _, e := conn.ReadFromIP(packet[:])
		switch {
		case errors.Is(e, os.ErrDeadlineExceeded):
			return false, err
		case e != nil:
			err = e // what a router or the own kernel said of the request; an answer may follow
		case n >= 8 && packet[0] == typeEchoReply && binary.BigEndian.Uint16(packet[4:]) == id:
			return true, nil
		}
	}
}

// request returns an echo request: type, code, checksum, id and number.
func request(id, seq uint16) []byte {
	packet := []byte{typeEchoRequest, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(packet[4:], id)
	binary.BigEndian.PutUint16(packet[6:], seq)
	binary.BigEndian.PutUint16(packet[2:], checksum(packet))
	return packet
}

// checksum is the one's complement of the one's complement sum (RFC 1071).
func checksum(packet []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(packet); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

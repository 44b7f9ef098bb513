package hosttest

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"zwrm/internal/host"
)

// Inject takes a frame for received if the link is up; there is always somebody at its
// other end. Nothing comes of the frame.
func (f *Fake) Inject(ctx context.Context, device string, frame []byte) error {
	op := fmt.Sprintf("inject %d bytes into %s", len(frame), device)
	err := ctx.Err()
	if err == nil {
		err = f.do(op, func() (bool, error) {
			l, ok := f.links[device]
			switch {
			case len(frame) < 14:
				return false, fmt.Errorf("%d bytes are not an Ethernet frame", len(frame))
			case !ok:
				return false, host.ErrNoLink
			case !l.Up:
				return false, host.ErrNoCarrier
			}
			return true, nil
		})
	}
	if err != nil {
		return fmt.Errorf("inject frame into %q: %w", device, err)
	}
	return nil
}

// Send takes a packet for sent if a route leads to its destination. Nothing comes of
// it.
func (f *Fake) Send(ctx context.Context, packet []byte) error {
	if len(packet) < 20 || packet[0]>>4 != 4 {
		return fmt.Errorf("send packet: %d bytes are not an IPv4 packet", len(packet))
	}
	dest := netip.AddrFrom4([4]byte(packet[16:]))
	err := ctx.Err()
	if err == nil {
		err = f.do(fmt.Sprintf("send %d bytes to %s", len(packet), dest), func() (bool, error) {
			if f.wayOf(dest).Type == host.RouteUnreachable {
				return false, unix.ENETUNREACH
			}
			return true, nil
		})
	}
	if err != nil {
		return fmt.Errorf("send packet to %s: %w", dest, err)
	}
	return nil
}

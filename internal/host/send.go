package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
)

// Send sends an IPv4 packet, given with its header, as one of the host's own. The
// kernel puts in what is 0 of the identification and the source, and the header's
// checksum (raw(7)). That a rule drops it is no error: it was sent, and got no
// further.
func (k *Kernel) Send(ctx context.Context, packet []byte) error {
	if len(packet) < 20 || packet[0]>>4 != 4 { // RFC 791
		return fmt.Errorf("send packet: %d bytes are not an IPv4 packet", len(packet))
	}
	dest := netip.AddrFrom4([4]byte(packet[16:]))
	if err := k.send(ctx, dest, packet); err != nil {
		return fmt.Errorf("send packet to %s: %w", dest, err)
	}
	return nil
}

func (k *Kernel) send(ctx context.Context, dest netip.Addr, packet []byte) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("open raw socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	err = effect.Do(k.hook, opSend, func() error { return unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: dest.As4()}) })
	if errors.Is(err, unix.EPERM) { // dropped (net/netfilter/core.c nf_hook_slow)
		return nil
	}
	return err
}

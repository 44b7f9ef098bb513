package host

import (
	"context"
	"net/netip"

	"zwrm/internal/host/icmp"
)

// Ping sends ICMP echo requests, about five per second, until one is answered or
// ctx ends.
func (k *Kernel) Ping(ctx context.Context, address netip.Addr) error {
	return icmp.Echo(ctx, address)
}

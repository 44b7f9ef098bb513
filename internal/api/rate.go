package api

import (
	"net/netip"
	"sync"
	"time"
)

// What a client by TCP may ask. A script that asks for the state of every VM stays
// below it.
const (
	perSecond = 50
	burst     = 200
	maxClient = 4096 // that are remembered
)

// clients remembers how much each client asked for lately.
type clients struct {
	mu    sync.Mutex
	known map[netip.Prefix]*budget
}

// budget is how many requests a client still may send at a moment; it grows by
// perSecond, up to burst.
type budget struct {
	left float64
	at   time.Time
}

func newClients() *clients { return &clients{known: map[netip.Prefix]*budget{}} }

// admit reports whether a client may have one more request answered. A client is an
// IPv4 address, or the /64 of an IPv6 address, of which one client may have all.
func (c *clients) admit(remote string) bool {
	client, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	address, bits := client.Addr().Unmap(), 64
	if address.Is4() {
		bits = 32
	}
	prefix, err := address.WithZone("").Prefix(bits)
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	b := c.known[prefix]
	if b == nil {
		c.forget(now)
		b = &budget{left: burst, at: now}
		c.known[prefix] = b
	}
	b.left = min(burst, b.left+perSecond*now.Sub(b.at).Seconds())
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// forget makes room when too many clients are known: of those that have all of their
// budget again nothing is lost, and else of all.
func (c *clients) forget(now time.Time) {
	if len(c.known) < maxClient {
		return
	}
	const full = burst / perSecond * time.Second
	for prefix, b := range c.known {
		if now.Sub(b.at) >= full {
			delete(c.known, prefix)
		}
	}
	if len(c.known) >= maxClient {
		clear(c.known)
	}
}

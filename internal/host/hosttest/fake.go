package hosttest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"zwrm/internal/host"
	"zwrm/internal/ipam"
)

// Fake is a kernel in memory with the methods of host.Kernel and its rules: names
// of at most 15 bytes, the limits of an MTU, links that are not there or not
// ours. It has no links at first, forwards nothing, and has IPv6 and connection
// tracking. It is safe for concurrent use.
type Fake struct {
	// Fail is called with the name of each operation before it begins; its error
	// becomes that of the operation, which then does nothing. It may call the
	// Fake. It is set before the Fake is used.
	//
	//	create zvm3                  bridge zwrmd0
	//	group zvm3 0x5a000001        forget 172.16.0.14
	//	up zvm3                      forget within 172.16.0.0/16
	//	down zvm3                    sysctl net/ipv4/ip_forward = 1
	//	delete zvm3                  read net/ipv4/ip_forward
	//	recycle zvm3
	//	links                        routes
	//	look at zvm3                 rename foo to zvm3
	//	ping 172.16.0.14             route 192.0.2.1
	//	inject 42 bytes into zvm3    route 192.0.2.1 from 172.16.0.14 by zvm3
	//	send 28 bytes to 172.16.0.14 forget others within 172.16.0.0/16
	Fail func(op string) error

	mu         sync.Mutex
	changed    chan struct{} // closed by the next change
	index      int           // of the last link
	links      map[string]*link
	routes     []host.Route
	sysctls    map[string]string // but those of links
	flows      []Flow
	neighbours map[neighbour]struct{}
	alive      map[netip.Addr]struct{}
	journal    []string
}

// link is a link and its own settings, in the order of host.TAPSettings.
type link struct {
	host.Link
	settings []int32
	users    int  // that have it open
	owned    bool // by root
}

type neighbour struct {
	device  string
	address netip.Addr
}

// Flow is a tracked connection: its addresses as the first packet had them, and
// as an answer has them.
type Flow struct{ Src, Dst, ReplySrc, ReplyDst netip.Addr }

// NewFake returns a Fake without links.
func NewFake() *Fake {
	return &Fake{
		changed:    make(chan struct{}),
		links:      map[string]*link{},
		sysctls:    bootSysctls(),
		neighbours: map[neighbour]struct{}{},
		alive:      map[netip.Addr]struct{}{},
	}
}

// allow asks whether an operation may begin.
func (f *Fake) allow(op string) error {
	if f.Fail == nil {
		return nil
	}
	return f.Fail(op)
}

// do makes a change, and notes it unless it fails or finds nothing to do.
func (f *Fake) do(op string, change func() (changed bool, err error)) error {
	if err := f.allow(op); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	changed, err := change()
	if changed {
		f.journal = append(f.journal, op)
		f.wake()
	}
	return err
}

// wake lets Pings look again.
func (f *Fake) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// Journal returns the operations that changed something, by the names that Fail
// gets, in order.
func (f *Fake) Journal() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.journal)
}

// Dump returns the whole state as sorted text: links with their settings that are
// not those of a TAP of ours, routes that were added, connections, neighbours,
// and sysctls that are not as at boot.
func (f *Fake) Dump() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, l := range f.sorted() {
		f.dumpLink(&b, l)
	}
	var lines []string
	for _, r := range f.routes {
		lines = append(lines, fmt.Sprintf("route %s dev %s table %d metric %d", r.Dest, r.Device, r.Table, r.Metric))
	}
	for _, flow := range f.flows {
		lines = append(lines, flow.String())
	}
	for n := range f.neighbours {
		lines = append(lines, fmt.Sprintf("neighbour %s dev %s", n.address, n.device))
	}
	boot := bootSysctls()
	for name, value := range f.sysctls {
		if value != boot[name] {
			lines = append(lines, fmt.Sprintf("sysctl %s = %s", name, value))
		}
	}
	slices.Sort(lines)
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	return b.String()
}

func (f *Fake) dumpLink(b *strings.Builder, l *link) {
	state := "down"
	if l.Up {
		state = "up"
	}
	fmt.Fprintf(b, "link %s kind %q group %s mac %s mtu %d %s\n", l.Name, l.Kind, l.Group, l.MAC, l.MTU, state)
	if l.Alias != "" {
		fmt.Fprintf(b, "\talias %q\n", l.Alias)
	}
	for _, address := range l.Addresses {
		fmt.Fprintf(b, "\tinet %s\n", address)
	}
	for _, dest := range l.Unrouted {
		fmt.Fprintf(b, "\tno route to %s\n", dest)
	}
	for _, wrong := range l.hardening().Wrong {
		fmt.Fprintf(b, "\twrong %s\n", wrong)
	}
}

// String returns the connection as in "flow 172.16.0.2 > 192.0.2.1, answered
// 192.0.2.1 > 203.0.113.7".
func (f Flow) String() string {
	return fmt.Sprintf("flow %s > %s, answered %s > %s", f.Src, f.Dst, f.ReplySrc, f.ReplyDst)
}

// sorted returns the links by name, TAPs of ours by slot.
func (f *Fake) sorted() []*link {
	return slices.SortedFunc(maps.Values(f.links), func(a, b *link) int {
		slotA, okA := ipam.ParseTAP(a.Name)
		slotB, okB := ipam.ParseTAP(b.Name)
		if okA && okB {
			return cmp.Compare(slotA, slotB)
		}
		return cmp.Compare(a.Name, b.Name)
	})
}

// Ping waits until the address is alive (see SetAlive) and on a link that is up,
// or is an own one, or ctx ends.
func (f *Fake) Ping(ctx context.Context, address netip.Addr) error {
	if err := f.allow("ping " + address.String()); err != nil {
		return err
	}
	for {
		f.mu.Lock()
		answers, changed := f.answers(address), f.changed
		f.mu.Unlock()
		if answers {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("ping %s: no answer: %w", address, context.Cause(ctx))
		}
	}
}

func (f *Fake) answers(address netip.Addr) bool {
	_, alive := f.alive[address]
	for _, l := range f.links {
		for _, own := range l.Addresses {
			if l.Up && (own.Addr() == address || alive && own.Contains(address)) {
				return true
			}
		}
	}
	return false
}

package hosttest

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"

	"zwrm/internal/host"
)

// AddLink makes a link, as somebody else does. Its index is ignored; an MTU of 0
// becomes 1500.
func (f *Fake) AddLink(l host.Link) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch _, ok := f.links[l.Name]; {
	case ok:
		return fmt.Errorf("add link %q: a link of this name exists", l.Name)
	case l.Name == "" || len(l.Name) > maxName:
		return fmt.Errorf("add link %q: no link can have this name", l.Name)
	}
	if l.MTU == 0 {
		l.MTU = 1500
	}
	l.Addresses = slices.Clone(l.Addresses)
	f.links[l.Name] = f.newLink(l)
	f.wake()
	return nil
}

// ChangeLink changes a link, as somebody else does. It reports whether there is
// one of that name.
func (f *Fake) ChangeLink(name string, change func(*host.Link)) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.links[name]
	if ok {
		change(&l.Link)
		f.wake()
	}
	return ok
}

// RemoveLink deletes a link, as somebody else does. It reports whether there was
// one of that name.
func (f *Fake) RemoveLink(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.links[name]
	f.remove(name)
	f.wake()
	return ok
}

// OpenTAP has a VMM open a TAP, until it is closed. Unlike the real one, a TAP may be
// opened by several.
func (f *Fake) OpenTAP(name string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.links[name]
	if !ok {
		return nil, fmt.Errorf("open TAP %q: %w", name, host.ErrNoLink)
	}
	l.users++
	l.Opened = true
	return &opened{fake: f, link: l}, nil
}

// opened is a TAP that a VMM has open.
type opened struct {
	fake *Fake
	link *link
	once sync.Once
}

func (o *opened) Close() error {
	o.fake.mu.Lock()
	defer o.fake.mu.Unlock()
	o.once.Do(func() {
		o.link.users--
		o.link.Opened = o.link.users > 0
	})
	return nil
}

// AddRoute adds a route, as somebody else does. Table 0 becomes main.
func (f *Fake) AddRoute(r host.Route) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.links[r.Device]; !ok {
		return fmt.Errorf("add route to %s: link %q: %w", r.Dest, r.Device, host.ErrNoLink)
	}
	if r.Table == 0 {
		r.Table = mainTable
	}
	f.routes = append(f.routes, r)
	return nil
}

// RemoveRoute deletes a route that the kernel made for an address of a link, as
// somebody else does.
func (f *Fake) RemoveRoute(device string, dest netip.Prefix) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.links[device]
	if !ok {
		return fmt.Errorf("remove route to %s: link %q: %w", dest, device, host.ErrNoLink)
	}
	l.Unrouted = append(l.Unrouted, dest)
	return nil
}

// AddFlow adds a tracked connection, as its packets do.
func (f *Fake) AddFlow(flow Flow) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flows = append(f.flows, flow)
	return nil
}

// AddNeighbour adds a neighbour entry, as an ARP answer does.
func (f *Fake) AddNeighbour(device string, address netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.links[device]; !ok {
		return fmt.Errorf("add neighbour %s: link %q: %w", address, device, host.ErrNoLink)
	}
	f.neighbours[neighbour{device, address}] = struct{}{}
	return nil
}

// Remembered returns the tracked connections and neighbour entries as sorted
// lines of text.
func (f *Fake) Remembered() ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	for _, flow := range f.flows {
		lines = append(lines, flow.String())
	}
	for n := range f.neighbours {
		lines = append(lines, "neighbour "+n.address.String())
	}
	slices.Sort(lines)
	return lines, nil
}

// SetAlive says whether a guest answers at an address (see Ping).
func (f *Fake) SetAlive(address netip.Addr, alive bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if alive {
		f.alive[address] = struct{}{}
	} else {
		delete(f.alive, address)
	}
	f.wake()
}

package hosttest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// The limits of a TAP's MTU (drivers/net/tun.c tun_net_initialize).
const (
	minMTU = 68
	maxMTU = 65535 - 14
)

// maxName is how long a link's name may be (IFNAMSIZ, with its final NUL).
const maxName = 15

// CreateTAP is host.Kernel's.
func (f *Fake) CreateTAP(ctx context.Context, taps ...host.TAP) error {
	for _, tap := range taps {
		err := ctx.Err()
		if err == nil {
			err = f.do("create "+tap.Name, func() (bool, error) { return f.createTAP(tap) })
		}
		if err != nil {
			return fmt.Errorf("create TAP %q: %w", tap.Name, err)
		}
	}
	return nil
}

func (f *Fake) createTAP(tap host.TAP) (bool, error) {
	switch err := tap.Check(); {
	case err != nil:
		return false, err
	case tap.MTU < minMTU || tap.MTU > maxMTU:
		return false, fmt.Errorf("MTU %d is outside of %d to %d", tap.MTU, minMTU, maxMTU)
	case tap.Address.Addr().IsUnspecified():
		return false, fmt.Errorf("the kernel did not take address %s", tap.Address)
	}
	l, ok := f.links[tap.Name]
	if ok {
		if err := foreign(l); err != nil {
			return false, err
		}
		if tap.Fresh || l.Group == model.GroupCondemned {
			f.remove(tap.Name)
			ok = false
		}
	}
	if !ok {
		l = f.newLink(host.Link{Name: tap.Name, Kind: host.KindTAP, Group: model.GroupUnassigned, Alias: tap.Alias})
	}
	before := *l
	before.Addresses, before.settings = slices.Clone(l.Addresses), slices.Clone(l.settings)
	l.MAC, l.MTU, l.Up, l.Addresses = tap.MAC, tap.MTU, true, []netip.Prefix{tap.Address}
	if tap.Reroute || !before.Up || !slices.Equal(before.Addresses, l.Addresses) {
		l.Unrouted = nil
	}
	for i, s := range host.TAPSettings() {
		l.settings[i] = s.Value
	}
	l.owned = true
	f.links[tap.Name] = l
	same := ok && before.owned && before.MAC == l.MAC && before.MTU == l.MTU && before.Up && len(before.Unrouted) == len(l.Unrouted) &&
		slices.Equal(before.Addresses, l.Addresses) && slices.Equal(before.settings, l.settings)
	return !same, nil
}

// foreign says why a link is not a TAP of ours; nil: it is one.
func foreign(l *link) error {
	if l.Kind != host.KindTAP || !l.Group.Known() {
		return fmt.Errorf("the name is that of a link of kind %q in group %s: %w", l.Kind, l.Group, host.ErrForeign)
	}
	return nil
}

// newLink returns a link with the settings that a new one has.
func (f *Fake) newLink(l host.Link) *link {
	f.index++
	l.Index = f.index
	made := &link{Link: l}
	for _, s := range host.TAPSettings() {
		made.settings = append(made.settings, number(f.sysctls[s.Sysctl("default")]))
	}
	return made
}

// SetGroup is host.Kernel's.
func (f *Fake) SetGroup(ctx context.Context, group model.Group, names ...string) error {
	return f.each(ctx, names, func(name string) error {
		return f.change(fmt.Sprintf("group %s %s", name, group), name, func(l *link) { l.Group, l.Alias = group, "" })
	})
}

// Recycle is host.Kernel's.
func (f *Fake) Recycle(ctx context.Context, alias string, names ...string) ([]string, error) {
	var done []string
	err := f.each(ctx, names, func(name string) error {
		err := f.do("recycle "+name, func() (bool, error) {
			l, ok := f.links[name]
			if !ok || l.Kind != host.KindTAP || l.Group != model.GroupUnassigned || l.Opened {
				return false, nil
			}
			l.Alias, l.owned = alias, true
			done = append(done, name)
			return true, nil
		})
		if err != nil {
			return fmt.Errorf("recycle TAP %q: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

// SetUp is host.Kernel's.
func (f *Fake) SetUp(ctx context.Context, up bool, names ...string) error {
	op := "down "
	if up {
		op = "up "
	}
	return f.each(ctx, names, func(name string) error {
		return f.change(op+name, name, func(l *link) {
			l.Up = up
			l.Unrouted = nil // they go, and come back
		})
	})
}

// change changes a link that must be there.
func (f *Fake) change(op, name string, change func(*link)) error {
	err := f.do(op, func() (bool, error) {
		l, ok := f.links[name]
		if !ok {
			return false, host.ErrNoLink
		}
		change(l)
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("%s: link %q: %w", op, name, err)
	}
	return nil
}

// DeleteLinks is host.Kernel's.
func (f *Fake) DeleteLinks(ctx context.Context, names ...string) error {
	return f.each(ctx, names, func(name string) error {
		err := f.do("delete "+name, func() (bool, error) {
			l, ok := f.links[name]
			if !ok {
				return false, nil
			}
			if strings.HasPrefix(name, ipam.TAPPrefix) {
				if err := foreign(l); err != nil {
					return false, err
				}
			}
			f.remove(name)
			return true, nil
		})
		if err != nil {
			return fmt.Errorf("delete link %q: %w", name, err)
		}
		return nil
	})
}

// remove takes a link away with what the kernel has on it.
func (f *Fake) remove(name string) {
	delete(f.links, name)
	f.routes = slices.DeleteFunc(f.routes, func(r host.Route) bool { return r.Device == name })
	for n := range f.neighbours {
		if n.device == name {
			delete(f.neighbours, n)
		}
	}
}

func (f *Fake) each(ctx context.Context, names []string, do func(name string) error) error {
	var errs []error
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, do(name))
	}
	return errors.Join(errs...)
}

// Links is host.Kernel's.
func (f *Fake) Links(ctx context.Context) ([]host.Link, error) {
	if err := errors.Join(ctx.Err(), f.allow("links")); err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.copies(func(string) bool { return true }), nil
}

// Devices is host.Kernel's.
func (f *Fake) Devices(ctx context.Context) ([]host.Link, error) {
	links, err := f.Links(ctx)
	for i := range links {
		links[i].Addresses, links[i].Unrouted = nil, nil
	}
	return links, err
}

// Weakened is host.Kernel's.
func (f *Fake) Weakened(ctx context.Context) ([]host.Link, error) {
	links, err := f.Devices(ctx)
	return slices.DeleteFunc(links, func(l host.Link) bool { return len(l.Hardening.Wrong) == 0 }), err
}

// LinksNamed is host.Kernel's.
func (f *Fake) LinksNamed(ctx context.Context, names ...string) ([]host.Link, error) {
	for _, name := range names {
		if err := errors.Join(ctx.Err(), f.allow("look at "+name)); err != nil {
			return nil, fmt.Errorf("look at link %q: %w", name, err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.copies(func(name string) bool { return slices.Contains(names, name) }), nil
}

// copies returns links in the order of their indexes.
func (f *Fake) copies(wanted func(name string) bool) []host.Link {
	links := make([]host.Link, 0, len(f.links))
	for name, l := range f.links {
		if !wanted(name) {
			continue
		}
		copied := l.Link
		copied.Addresses = slices.Clone(l.Addresses)
		copied.Unrouted = slices.Clone(l.Unrouted)
		copied.Hardening = l.hardening()
		links = append(links, copied)
	}
	slices.SortFunc(links, func(a, b host.Link) int { return cmp.Compare(a.Index, b.Index) })
	return links
}

// Rename is host.Kernel's.
func (f *Fake) Rename(ctx context.Context, from, to string) error {
	err := ctx.Err()
	if err == nil {
		err = f.do("rename "+from+" to "+to, func() (bool, error) {
			l, ok := f.links[from]
			if !ok {
				return false, host.ErrNoLink
			}
			if err := foreign(l); err != nil {
				return false, err
			}
			if _, taken := f.links[to]; taken {
				return false, errors.New("file exists")
			}
			delete(f.links, from)
			l.Name = to
			f.links[to] = l
			return true, nil
		})
	}
	if err != nil {
		return fmt.Errorf("rename link %q to %q: %w", from, to, err)
	}
	return nil
}

// hardening compares the link's settings with those of a TAP of ours.
func (l *link) hardening() host.Hardening {
	var h host.Hardening
	if !strings.HasPrefix(l.Name, ipam.TAPPrefix) {
		return h
	}
	for i, s := range host.TAPSettings() {
		if l.settings[i] != s.Value {
			h.Wrong = append(h.Wrong, s.Wrong(l.Name, l.settings[i]))
		}
	}
	if l.Kind == host.KindTAP && !l.owned && l.users == 0 {
		h.Wrong = append(h.Wrong, host.NotOwned)
	}
	return h
}

// Routes is host.Kernel's: the routes that were added, and those that the kernel
// adds for the addresses of links that are up.
func (f *Fake) Routes(ctx context.Context) ([]host.Route, error) {
	if err := errors.Join(ctx.Err(), f.allow("routes")); err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.allRoutes(), nil
}

func (f *Fake) allRoutes() []host.Route {
	routes := slices.Clone(f.routes)
	for _, l := range f.sorted() {
		for _, address := range l.Addresses {
			if l.Up && !address.IsSingleIP() && !slices.Contains(l.Unrouted, address.Masked()) {
				routes = append(routes, host.Route{Dest: address.Masked(), Device: l.Name, Table: mainTable})
			}
		}
	}
	return routes
}

// mainTable is the routing table that packets take (RT_TABLE_MAIN).
const mainTable = 254

// EnsureBridge is host.Kernel's.
func (f *Fake) EnsureBridge(ctx context.Context, name string, address netip.Prefix, alias string) error {
	err := ctx.Err()
	if err == nil {
		err = f.do("bridge "+name, func() (bool, error) { return f.ensureBridge(name, address, alias) })
	}
	if err != nil {
		return fmt.Errorf("make bridge %q: %w", name, err)
	}
	return nil
}

func (f *Fake) ensureBridge(name string, address netip.Prefix, alias string) (bool, error) {
	switch {
	case name == "" || len(name) > maxName:
		return false, errors.New("no link can have this name")
	case !address.IsValid() || !address.Addr().Is4():
		return false, fmt.Errorf("address %q is not IPv4", address)
	}
	l, ok := f.links[name]
	if !ok {
		l = f.newLink(host.Link{Name: name, Kind: host.KindBridge, MTU: 1500, Alias: alias})
	}
	if l.Kind != host.KindBridge || l.Alias != alias {
		return false, fmt.Errorf("the name is that of a link of kind %q with alias %q: %w", l.Kind, l.Alias, host.ErrForeign)
	}
	if ok && l.Up && l.Unrouted == nil && slices.Equal(l.Addresses, []netip.Prefix{address}) {
		return false, nil
	}
	l.Up, l.Addresses, l.Unrouted = true, []netip.Prefix{address}, nil
	f.links[name] = l
	return true, nil
}

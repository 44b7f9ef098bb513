package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"zwrm/internal/config"
	"zwrm/internal/effect"
	"zwrm/internal/firewall"
	"zwrm/internal/firewall/iptables"
	"zwrm/internal/firewall/nftables"
	"zwrm/internal/reconcile"
)

// keeper is a dataplane: what keeps our own rules in the kernel.
type keeper interface {
	reconcile.Firewall
	Version() string
	Drops(ctx context.Context) (firewall.Drops, error)
}

// neighbour is another firewall on the host, or the places in several that must let
// our devices pass.
type neighbour interface {
	Apply(ctx context.Context) error
	Diff(ctx context.Context) ([]firewall.Difference, error)
	Remove(ctx context.Context) error
}

// remover takes away what the dataplane left that is not configured any more.
type remover interface {
	Remove(ctx context.Context) error
}

// dataplane is the host's firewalls as one: our rules, and what of others they
// need. A neighbour that cannot be asked holds nothing up: it may cut VMs off, but
// can open nothing, since a drop of ours is final.
type dataplane struct {
	keeper
	name       config.Dataplane
	losses     []string // what this kernel cannot keep safe, for people
	neighbours []neighbour
	leftovers  remover // nil: none, or taken away
	log        *slog.Logger
}

// openDataplane opens the configured dataplane and what may be left of the other
// one. It changes nothing.
func openDataplane(ctx context.Context, name config.Dataplane, log *slog.Logger, hook effect.Hook) (*dataplane, error) {
	d := &dataplane{name: name, log: log}
	switch name {
	case config.Nftables:
		own, err := nftables.Open(ctx, hook)
		if err != nil {
			return nil, err
		}
		d.keeper, d.losses = own, own.Losses()
		if other, err := iptables.Leftovers(ctx, hook); err != nil {
			return nil, err
		} else if other != nil {
			d.leftovers = other
		}
	default:
		own, err := iptables.Open(ctx, hook)
		if err != nil {
			return nil, err
		}
		d.keeper = own
		if other, err := nftables.Leftovers(ctx, hook); err != nil {
			return nil, err
		} else if other != nil {
			d.leftovers = other
		}
	}
	return d, nil
}

// Apply brings all to what is wanted. Our rules stand before those of the other
// dataplane go, so that a switch opens nothing.
func (d *dataplane) Apply(ctx context.Context, want firewall.Ruleset) error {
	if err := d.keeper.Apply(ctx, want); err != nil {
		return err
	}
	if d.leftovers != nil {
		if err := d.leftovers.Remove(ctx); err != nil {
			return fmt.Errorf("take away the rules of the other dataplane: %w", err)
		}
		d.leftovers = nil
	}
	for _, n := range d.neighbours {
		if err := n.Apply(ctx); err != nil {
			d.log.Warn("a firewall of the host is not told to let VMs pass", "error", err)
		}
	}
	return nil
}

// Diff returns what is not as wanted, in our rules and in those of neighbours.
func (d *dataplane) Diff(ctx context.Context, want firewall.Ruleset) ([]firewall.Difference, error) {
	all, err := d.keeper.Diff(ctx, want)
	if err != nil {
		return nil, err
	}
	for _, n := range d.neighbours {
		found, err := n.Diff(ctx)
		if err != nil {
			d.log.Warn("a firewall of the host cannot be asked", "error", err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// Remove removes all rules of ours: what lets our devices pass first, and what the
// other dataplane left, if no Apply came before.
func (d *dataplane) Remove(ctx context.Context) error {
	var errs []error
	for _, n := range d.neighbours {
		errs = append(errs, n.Remove(ctx))
	}
	if d.leftovers != nil {
		errs = append(errs, d.leftovers.Remove(ctx))
	}
	return errors.Join(append(errs, d.keeper.Remove(ctx))...)
}

// made reports whether a process was a program that we ran to change rules.
func (d *dataplane) made(pid int) bool {
	for _, part := range d.parts() {
		if maker, ok := part.(interface{ Made(pid int) bool }); ok && maker.Made(pid) {
			return true
		}
	}
	return false
}

// parts returns everything that the dataplane is made of.
func (d *dataplane) parts() []any {
	parts := []any{d.keeper}
	if d.leftovers != nil {
		parts = append(parts, d.leftovers)
	}
	for _, n := range d.neighbours {
		parts = append(parts, n)
	}
	return parts
}

// Close lets go of the kernel. Rules stay.
func (d *dataplane) Close() error {
	var errs []error
	for _, part := range d.parts() {
		if closer, ok := part.(interface{ Close() error }); ok {
			errs = append(errs, closer.Close())
		}
	}
	return errors.Join(errs...)
}

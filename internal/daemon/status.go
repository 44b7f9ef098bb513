package daemon

import (
	"context"
	"errors"
	"maps"
	"slices"

	"zwrm/internal/api"
	"zwrm/internal/firewall"
	"zwrm/internal/fleet"
	"zwrm/internal/plan"
	"zwrm/internal/reconcile"
	"zwrm/internal/wire"
)

// apiDeps is what the API speaks for.
func (d *Daemon) apiDeps(f *fleet.Fleet) api.Deps {
	return api.Deps{
		Apps: f, VMs: &listing{Fleet: f}, Images: d.images, ImageRemover: f,
		Network: network{d, f}, Tracer: network{d, f}, Events: d.events, Metrics: metrics(d, f),
		Layout: d.cfg.Network.Layout, DNS: d.cfg.Network.DNS, Log: d.log,
	}
}

// network answers for the host's side of the network.
type network struct {
	daemon *Daemon
	fleet  *fleet.Fleet
}

// Status returns the state of the network.
func (n network) Status(ctx context.Context) (wire.NetworkStatus, error) {
	drops, err := n.daemon.drops(ctx)
	if err != nil {
		return wire.NetworkStatus{}, err
	}
	cfg := n.daemon.cfg.Network
	used, _, resting := n.fleet.Slots()
	history := n.daemon.reconciler.History()
	spare, _ := n.daemon.reconciler.Spares()
	status := wire.NetworkStatus{
		Firewall:          string(cfg.Firewall),
		Dataplane:         n.daemon.dataplane.Version(),
		Losses:            append([]string{}, n.daemon.dataplane.losses...), // never null
		Subnet:            cfg.Layout.Subnet().String(),
		Capacity:          cfg.Layout.Capacity(),
		Used:              used,
		Quarantined:       resting,
		Spare:             len(spare),
		ExternalInterface: n.daemon.uplink.Name,
		MTU:               n.daemon.reconciler.MTU(),
		Private:           cfg.Bridge.Enabled,
		Driver:            n.daemon.driver.Name() + " (" + string(n.daemon.driver.Accel()) + ")",
		PendingLinks:      n.daemon.reconciler.Pending(),
		Drift:             history.Drift,
		LastRepair:        repair(history.Last),
		Fights:            fights(history.Fights),
		Drops:             dropped(drops),
	}
	if bridge := plan.Base(cfg, n.daemon.uplink).Bridge; bridge != nil {
		status.Bridge = &wire.Bridge{Name: bridge.Name, Address: bridge.Address.String()}
	}
	return status, nil
}

// Check compares the kernel with what it should be.
func (n network) Check(ctx context.Context) ([]wire.Difference, error) {
	findings, err := n.daemon.reconciler.Check(ctx)
	return differences(findings), err
}

// Repair mends what differs and returns it.
func (n network) Repair(ctx context.Context) ([]wire.Difference, error) {
	findings, err := n.daemon.reconciler.Repair(ctx)
	// From here on it is done to its end: no VM is left with half a restart.
	reconnected := n.fleet.Reconnect(context.WithoutCancel(ctx), n.daemon.reconciler.Rebuilt())
	return differences(findings), errors.Join(err, reconnected)
}

// dropped returns the reasons in the order of the alphabet.
func dropped(drops firewall.Drops) []wire.Drop {
	out := make([]wire.Drop, 0, len(drops))
	for _, reason := range slices.Sorted(maps.Keys(drops)) {
		out = append(out, wire.Drop{Reason: string(reason), Packets: drops[reason].Packets, Bytes: drops[reason].Bytes})
	}
	return out
}

// fights returns the fights that go on, never null.
func fights(all []reconcile.Fight) []wire.Fight {
	out := make([]wire.Fight, len(all))
	for i, f := range all {
		out[i] = wire.Fight{Object: f.Object, Since: f.Since.UTC(), Mended: f.Mended, By: api.Culprits(f.By)}
	}
	return out
}

func repair(last *reconcile.Repair) *wire.Repair {
	if last == nil {
		return nil
	}
	return &wire.Repair{At: last.At, Differences: differences(last.Differences)}
}

func differences(findings []firewall.Difference) []wire.Difference {
	out := make([]wire.Difference, len(findings))
	for i, f := range findings {
		out[i] = wire.Difference{Object: f.Object, Wanted: f.Wanted, Found: f.Found}
	}
	return out
}

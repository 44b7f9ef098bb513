package daemon

import (
	"context"

	"zwrm/internal/config"
	"zwrm/internal/doctor"
	"zwrm/internal/effect"
	"zwrm/internal/event"
	"zwrm/internal/firewall/firewalld"
	"zwrm/internal/firewall/foreign"
)

// neighbours are the other firewalls of the host: what our devices need of them, and
// what of them stands in the way.
type neighbours struct {
	want   foreign.Want
	tables *foreign.Firewalls
	zone   *firewalld.Zone
}

// openNeighbours changes nothing, and minds no firewall that is not there.
func openNeighbours(ctx context.Context, network config.Network, external string, hook effect.Hook) (_ *neighbours, err error) {
	n := &neighbours{want: foreign.Want{
		External: external, HostAccess: network.HostAccess, Accepts: network.Firewall == config.Nftables,
	}}
	if n.tables, err = foreign.Open(ctx, n.want, hook); err != nil {
		return nil, err
	}
	n.zone, err = firewalld.Open(ctx, "", hook)
	return n, err
}

// all returns the neighbours in the order in which they are told.
func (n *neighbours) all() []neighbour { return []neighbour{n.tables, n.zone} }

// conflicts returns what of them stands in VMs' way, and what could not be found out.
func (n *neighbours) conflicts(ctx context.Context) (found []doctor.Finding, unknown []error) {
	survey, err := n.tables.Survey(ctx)
	if err != nil {
		unknown = append(unknown, err)
	}
	for _, c := range foreign.Conflicts(survey, n.want) {
		severity := doctor.Warning
		if c.Drops {
			severity = doctor.Problem
		}
		found = append(found, doctor.Finding{Subject: c.Subject, Severity: severity, What: c.What, Mend: c.Mend})
	}
	state, err := n.zone.State(ctx)
	if err != nil {
		unknown = append(unknown, err)
	}
	for _, c := range state.Conflicts {
		found = append(found, doctor.Finding{Subject: "firewalld", Severity: doctor.Problem, What: c.What(), Mend: c.Mend()})
	}
	return found, unknown
}

// watchZone asks for a comparison whenever firewalld may have let go of our devices.
func (d *Daemon) watchZone(ctx context.Context) error {
	for {
		select {
		case <-d.neighbours.zone.Changed():
			d.reconciler.SuspectRules(event.Culprit{Program: "firewalld"})
			d.suspect()
		case <-ctx.Done():
			return nil
		}
	}
}

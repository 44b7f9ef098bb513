package daemon

import (
	"context"

	"zwrm/internal/firewall"
	"zwrm/internal/plan"
	"zwrm/internal/verdict"
)

// Explain says what becomes of a packet: by the rules that there should be, and the
// links and routes that there are.
func (n network) Explain(ctx context.Context, q verdict.Question) (verdict.Answer, error) {
	d := n.daemon
	vms, err := d.rows(ctx)
	if err != nil {
		return verdict.Answer{}, err
	}
	return verdict.Explain(ctx, verdict.World{
		Layout:     d.cfg.Network.Layout,
		External:   d.uplink.Name,
		EgressDeny: d.cfg.Network.EgressDeny,
		VMs:        vms,
		Rules:      firewall.Build(plan.ForVMs(d.cfg.Network, d.uplink, vms).Policy),
	}, d.kernel, q)
}

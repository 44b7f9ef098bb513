package daemon

import (
	"context"
	"errors"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/trace"
	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/verdict"
)

// Trace sends one packet, as its sender would, and returns what the kernel's rules
// did with it.
func (n network) Trace(ctx context.Context, flow firewall.Flow) (verdict.Traced, error) {
	if !flow.Source.IsValid() {
		return verdict.Traced{}, model.Problemf(model.Invalid, "there is nothing to trace: the host has no way there, and so no address to send from")
	}
	packet := trace.NewPacket(flow.Source, flow.Dest, flow.Service)
	result, err := trace.Run(ctx, n.daemon.hook, trace.Probe{Packet: packet, Device: flow.From.Name}, func() error {
		return n.send(ctx, flow, packet)
	})
	switch {
	case errors.Is(err, host.ErrNoLink), errors.Is(err, host.ErrNoCarrier):
		return verdict.Traced{}, model.Problemf(model.Conflict, "%v", err).WithHint("a packet can be received only where somebody sends: start the VM")
	case errors.Is(err, trace.ErrLegacy), errors.Is(err, trace.ErrBusy):
		return verdict.Traced{}, model.Problemf(model.Conflict, "%v", err)
	case err != nil:
		return verdict.Traced{}, err
	}
	return traced(result), nil
}

// send has the kernel receive the packet by the device of the flow, or sends it as one
// of the host's own.
func (n network) send(ctx context.Context, flow firewall.Flow, packet trace.Packet) error {
	kernel := n.daemon.kernel
	if flow.From.Name == "" {
		return kernel.Send(ctx, packet.Bytes())
	}
	if flow.From.Group.Ours() {
		return kernel.Inject(ctx, flow.From.Name, packet.Frame(ipam.MACOf(flow.Source), ipam.GatewayMAC()))
	}
	links, err := kernel.Links(ctx)
	if err != nil {
		return err
	}
	for _, link := range links {
		if link.Name == flow.From.Name {
			return kernel.Inject(ctx, link.Name, packet.Frame(ipam.GatewayMAC(), link.MAC)) // any sender's
		}
	}
	return host.ErrNoLink
}

// traced puts a result into the words of an explanation.
func traced(r trace.Result) verdict.Traced {
	t := verdict.Traced{Verdict: verdict.Drop}
	if r.Fate == trace.Sent || r.Fate == trace.Delivered {
		t.Verdict = verdict.Pass
	}
	switch {
	case r.Deciding != trace.Step{}:
		t.Rule, t.Chain = r.Deciding.String(), r.Deciding.Chain
		t.Table = string(r.Deciding.Family) + " " + r.Deciding.Table
	case r.Fate == trace.Lost:
		t.Rule = "no rule: the kernel has no way for it, or does not forward"
	case r.Fate == trace.Unseen:
		t.Rule = "no rule: it did not come to the first one"
	}
	return t
}

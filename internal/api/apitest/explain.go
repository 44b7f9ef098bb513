package apitest

import (
	"context"
	"net/netip"
	"slices"

	"zwrm/internal/config"
	"zwrm/internal/doctor"
	"zwrm/internal/firewall"
	"zwrm/internal/host"
	"zwrm/internal/host/hosttest"
	"zwrm/internal/plan"
	"zwrm/internal/verdict"
)

// Explain is the real evaluator on a kernel in memory: the VMs' TAPs, and eth0 with
// 192.0.2.1/24 and the default route.
func (h *Host) Explain(ctx context.Context, q verdict.Question) (verdict.Answer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.faults["Explain"]; err != nil {
		return verdict.Answer{}, err
	}
	want, err := h.plan()
	if err != nil {
		return verdict.Answer{}, err
	}
	kernel, err := h.kernel(ctx, want)
	if err != nil {
		return verdict.Answer{}, err
	}
	world := verdict.World{Layout: h.layout, External: want.Policy.External, VMs: h.vms, Rules: firewall.Build(want.Policy)}
	return verdict.Explain(ctx, world, kernel, q)
}

func (h *Host) plan() (plan.Host, error) {
	cfg, err := config.Parse("[network]\nsubnet = \""+h.layout.Subnet().String()+"\"\n[network.bridge]\nenabled = true\n", nil)
	return plan.ForVMs(cfg.Network, plan.Uplink{Name: "eth0", MTU: 1500}, h.vms), err
}

func (h *Host) kernel(ctx context.Context, want plan.Host) (*hosttest.Fake, error) {
	kernel := hosttest.NewFake()
	for _, l := range want.Links {
		if err := kernel.CreateTAP(ctx, host.TAP{Name: l.Name, MAC: l.MAC, MTU: l.MTU, Address: l.Address}); err != nil {
			return nil, err
		}
		if err := kernel.SetGroup(ctx, l.Group, l.Name); err != nil {
			return nil, err
		}
	}
	uplink := host.Link{Name: want.Policy.External, Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}
	if err := kernel.AddLink(uplink); err != nil {
		return nil, err
	}
	for _, sysctl := range want.Sysctls {
		if err := kernel.SetSysctl(sysctl.Name, sysctl.Value); err != nil {
			return nil, err
		}
	}
	return kernel, kernel.AddRoute(host.Route{Dest: netip.MustParsePrefix("0.0.0.0/0"), Device: uplink.Name})
}

// Trace does with a packet what the rules say, unless Stray was called.
func (h *Host) Trace(_ context.Context, packet firewall.Flow) (verdict.Traced, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.faults["Trace"]; err != nil {
		return verdict.Traced{}, err
	}
	if h.stray != nil {
		return *h.stray, nil
	}
	want, err := h.plan()
	if err != nil {
		return verdict.Traced{}, err
	}
	decision := firewall.Build(want.Policy).Decide(packet)
	traced := verdict.Traced{Verdict: verdict.Pass}
	if decision.Verdict == firewall.Drop {
		traced.Verdict = verdict.Drop
	}
	if decision.Rule != (firewall.Rule{}) {
		traced.Rule, traced.Table, traced.Chain = "zwrm: "+string(decision.Rule.Reason), "inet zwrm", string(decision.Rule.Stage)
	}
	return traced, nil
}

// Stray makes the kernel do something else with packets than the rules say.
func (h *Host) Stray(traced verdict.Traced) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stray = &traced
}

// Ail makes the doctor find things.
func (h *Host) Ail(findings ...doctor.Finding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.findings = append(h.findings, findings...)
}

// Doctor returns what Ail was told.
func (h *Host) Doctor(context.Context) ([]doctor.Finding, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.findings), h.faults["Doctor"]
}

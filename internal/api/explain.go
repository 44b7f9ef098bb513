package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"zwrm/internal/firewall"
	"zwrm/internal/model"
	"zwrm/internal/verdict"
	"zwrm/internal/wire"
)

type (
	explainInput struct {
		Source      string `query:"source" required:"true" doc:"name of a VM, IP address, \"internet\" or \"host\""`
		Destination string `query:"destination" required:"true" doc:"name of a VM, IP address, \"internet\" or \"host\""`
		Port        int    `query:"port" minimum:"1" maximum:"65535" doc:"left out: the packet is an ICMP echo request"`
		Protocol    string `query:"protocol" enum:"tcp,udp" doc:"of the port; left out: tcp"`
	}
	traceInput struct{ Body wire.Explain }
)

func (s service) registerExplain(api huma.API) {
	handle(api, huma.Operation{
		OperationID: "network-explain", Method: http.MethodGet, Path: "/v1/network/explain",
		Summary:     "Say what becomes of a new connection, and why",
		Description: "Nothing is sent: the rules are evaluated on the live state of the host.",
	}, s.explain)
	handle(api, huma.Operation{
		OperationID: "network-trace", Method: http.MethodPost, Path: "/v1/network/explain",
		Summary:     "Say what becomes of a new connection, and send one packet to see",
		Description: "The answer also has what the kernel did with the packet.",
	}, s.trace)
	handle(api, huma.Operation{
		OperationID: "doctor", Method: http.MethodGet, Path: "/v1/doctor",
		Summary:     "Say what on the host stands in the way, and what to do about it",
		Description: "Problems come first. The list is empty when nothing does.",
	}, s.doctor)
}

func (s service) explain(ctx context.Context, in *explainInput) (*answer[wire.Explanation], error) {
	_, explanation, err := s.judge(ctx, wire.Explain(*in))
	if err != nil {
		return nil, err
	}
	return &answer[wire.Explanation]{explanation}, nil
}

func (s service) trace(ctx context.Context, in *traceInput) (*answer[wire.Explanation], error) {
	if s.Tracer == nil {
		return nil, model.Problemf(model.Conflict, "trace is not available").WithHint("ask without it: the answer is the same, but nothing is sent")
	}
	judged, explanation, err := s.judge(ctx, in.Body)
	if err != nil {
		return nil, err
	}
	if judged.Flow.Family == firewall.IPv6 {
		return nil, model.Problemf(model.Invalid, "a trace is of IPv4 only").WithHint("ask without it: IPv6 of VMs is off")
	}
	traced, err := s.Tracer.Trace(ctx, judged.Flow)
	if err != nil {
		return nil, err
	}
	explanation.Trace = &wire.Trace{
		Verdict: string(traced.Verdict), Rule: traced.Rule, Table: traced.Table, Chain: traced.Chain,
		Agrees: traced.Verdict == judged.Verdict,
	}
	return &answer[wire.Explanation]{explanation}, nil
}

func (s service) judge(ctx context.Context, in wire.Explain) (verdict.Answer, wire.Explanation, error) {
	q := verdict.Question{Source: in.Source, Dest: in.Destination}
	switch {
	case in.Port != 0:
		q.Service = model.Service{Protocol: model.TCP, Port: uint16(in.Port)}
		if in.Protocol != "" {
			q.Service.Protocol = model.Protocol(in.Protocol)
		}
	case in.Protocol != "":
		return verdict.Answer{}, wire.Explanation{}, model.Problemf(model.Invalid, "protocol %q is without a port", in.Protocol)
	}
	judged, err := s.Network.Explain(ctx, q)
	return judged, wireExplanation(judged), err
}

func (s service) doctor(ctx context.Context, _ *struct{}) (*list[wire.Finding], error) {
	findings, err := s.Network.Doctor(ctx)
	if err != nil {
		return nil, err
	}
	return &list[wire.Finding]{convert(findings, wireFinding)}, nil
}

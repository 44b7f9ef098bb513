package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"zwrm/internal/wire"
)

func (s service) registerNetwork(api huma.API) {
	handle(api, huma.Operation{
		OperationID: "network-status", Method: http.MethodGet, Path: "/v1/network", Summary: "Show the state of the host's side of the network",
	}, s.networkStatus)
	handle(api, huma.Operation{
		OperationID: "network-check", Method: http.MethodGet, Path: "/v1/network/check", Summary: "Compare the kernel with what it should be",
	}, s.networkCheck)
	handle(api, huma.Operation{
		OperationID: "network-repair", Method: http.MethodPost, Path: "/v1/network/repair",
		Summary:     "Compare the kernel with what it should be, and mend it",
		Description: "The answer has what was not as it should be.",
	}, s.networkRepair)
}

func (s service) networkStatus(ctx context.Context, _ *struct{}) (*answer[wire.NetworkStatus], error) {
	status, err := s.Network.Status(ctx)
	if err != nil {
		return nil, err
	}
	return &answer[wire.NetworkStatus]{status}, nil
}

func (s service) networkCheck(ctx context.Context, _ *struct{}) (*answer[wire.Check], error) {
	differences, err := s.Network.Check(ctx)
	if err != nil {
		return nil, err
	}
	return &answer[wire.Check]{wire.Check{InSync: len(differences) == 0, Differences: some(differences)}}, nil
}

func (s service) networkRepair(ctx context.Context, _ *struct{}) (*answer[wire.Repair], error) {
	differences, err := s.Network.Repair(ctx)
	if err != nil {
		return nil, err
	}
	return &answer[wire.Repair]{wire.Repair{At: time.Now().UTC(), Differences: some(differences)}}, nil
}

// some returns the differences as a list that is never null in JSON.
func some(differences []wire.Difference) []wire.Difference {
	if differences == nil {
		return []wire.Difference{}
	}
	return differences
}

package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"zwrm/internal/wire"
)

type (
	attachInput struct{ Body wire.Attach }
	detachInput struct {
		Name string `path:"name"`
	}
)

func (s service) registerAttachments(api huma.API) {
	handle(api, huma.Operation{
		OperationID: "attach", Method: http.MethodPost, Path: "/v1/attachments", DefaultStatus: http.StatusCreated,
		Summary:     "Make a network for a VMM that somebody else runs",
		Description: "Run the VMM on the TAP \"tap\" with the guest's address \"mac\", and append \"kernel_args\" to its kernel command line.",
	}, s.attach)
	handle(api, huma.Operation{
		OperationID: "detach", Method: http.MethodDelete, Path: "/v1/attachments/{name}", Summary: "Remove the network of an attachment",
	}, s.detach)
}

func (s service) attach(ctx context.Context, in *attachInput) (*answer[wire.VM], error) {
	name, err := parseName(in.Body.Name)
	if err != nil {
		return nil, err
	}
	app, err := parseName(in.Body.App)
	if err != nil {
		return nil, err
	}
	vm, err := s.VMs.Attach(ctx, name, app)
	if err != nil {
		return nil, err
	}
	return &answer[wire.VM]{s.wireVM(vm)}, nil
}

func (s service) detach(ctx context.Context, in *detachInput) (*struct{}, error) {
	name, err := parseName(in.Name)
	if err != nil {
		return nil, err
	}
	return nil, s.VMs.Detach(ctx, name)
}

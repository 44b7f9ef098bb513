package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"zwrm/internal/model"
	"zwrm/internal/wire"
)

type (
	listVMsInput struct {
		App string `query:"app" doc:"only the VMs of this app"`
	}
	vmInput struct {
		VM string `path:"vm"`
	}
)

func (s service) registerVMs(api huma.API) {
	handle(api, huma.Operation{
		OperationID: "list-vms", Method: http.MethodGet, Path: "/v1/vms", Summary: "List the VMs and attachments",
	}, s.listVMs)
	handle(api, huma.Operation{
		OperationID: "get-vm", Method: http.MethodGet, Path: "/v1/vms/{vm}", Summary: "Show one VM or attachment",
	}, s.getVM)
	handle(api, huma.Operation{
		OperationID: "restart-vm", Method: http.MethodPost, Path: "/v1/vms/{vm}/restart", Summary: "Restart a VM on its own slot",
	}, s.restart)
	handle(api, huma.Operation{
		OperationID: "read-console", Method: http.MethodGet, Path: "/v1/vms/{vm}/console",
		Summary:     "Read a VM's console",
		Description: "What the guest wrote, byte by byte: it may hold control characters.",
		Responses: map[string]*huma.Response{"200": {
			Description: "The console, from the oldest byte that is kept",
			Content:     map[string]*huma.MediaType{consoleType: {Schema: &huma.Schema{Type: huma.TypeString}}},
		}},
	}, s.console)
}

func (s service) listVMs(ctx context.Context, in *listVMsInput) (*list[wire.VM], error) {
	vms, err := s.vmsOf(ctx, in.App)
	if err != nil {
		return nil, err
	}
	return &list[wire.VM]{convert(vms, s.wireVM)}, nil
}

// vmsOf returns the VMs of an app, or of all for an empty name.
func (s service) vmsOf(ctx context.Context, app string) ([]model.VM, error) {
	if app == "" {
		return s.VMs.VMs(ctx)
	}
	name, err := parseName(app)
	if err != nil {
		return nil, err
	}
	owner, err := s.Apps.App(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.VMs.AppVMs(ctx, owner.ID)
}

func (s service) getVM(ctx context.Context, in *vmInput) (*answer[wire.VM], error) {
	name, err := parseName(in.VM)
	if err != nil {
		return nil, err
	}
	vm, err := s.VMs.VM(ctx, name)
	if err != nil {
		return nil, err
	}
	return &answer[wire.VM]{s.wireVM(vm)}, nil
}

func (s service) restart(ctx context.Context, in *vmInput) (*struct{}, error) {
	name, err := parseName(in.VM)
	if err != nil {
		return nil, err
	}
	return nil, s.VMs.Restart(ctx, name)
}

package api

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"zwrm/internal/model"
	"zwrm/internal/wire"
)

// listType is the content type of lists.
const listType = "application/json"

type (
	listVMsInput struct {
		App string `query:"app" doc:"only the VMs of this app"`
	}
	vmInput struct {
		VM string `path:"vm"`
	}
)

func (s service) registerVMs(api huma.API) {
	ref := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[wire.VM](), true, "")
	handle(api, huma.Operation{
		OperationID: "list-vms", Method: http.MethodGet, Path: "/v1/vms", Summary: "List the VMs and attachments",
		Responses: map[string]*huma.Response{"200": {
			Description: http.StatusText(http.StatusOK),
			Content:     map[string]*huma.MediaType{listType: {Schema: &huma.Schema{Type: huma.TypeArray, Items: ref}}},
		}},
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

// listVMs answers while it goes through the VMs: thousands of them as one text would
// take more memory than all else here.
func (s service) listVMs(ctx context.Context, in *listVMsInput) (*huma.StreamResponse, error) {
	vms, err := s.vmsOf(ctx, in.App)
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		_, w := humago.Unwrap(hc)
		w.Header().Set("Content-Type", listType)
		if err := writeList(w, vms, s.wireVM); err != nil {
			panic(http.ErrAbortHandler) // the client is gone
		}
	}}, nil
}

// writeList writes elements as a JSON array, some at a time.
func writeList[M, W any](w io.Writer, in []M, shape func(M) W) error {
	out := bufio.NewWriterSize(w, 64<<10)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	separator := byte('[')
	for _, m := range in {
		_ = out.WriteByte(separator) // Flush has the error
		if err := encoder.Encode(shape(m)); err != nil {
			return err
		}
		separator = ','
	}
	if len(in) == 0 {
		_ = out.WriteByte(separator)
	}
	_, _ = out.WriteString("]\n")
	return out.Flush()
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

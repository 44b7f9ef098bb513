package api

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"path"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"zwrm/internal/doctor"
	"zwrm/internal/event"
	"zwrm/internal/firewall"
	"zwrm/internal/image"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/verdict"
	"zwrm/internal/wire"
)

// Apps deploys, scales and destroys apps.
type Apps interface {
	Deploy(ctx context.Context, name model.Name, spec model.Spec) (model.App, error) // create or update
	Scale(ctx context.Context, name model.Name, n int) (model.App, error)
	Destroy(ctx context.Context, name model.Name) error
	Apps(ctx context.Context) ([]model.App, error)
	App(ctx context.Context, name model.Name) (model.App, error)
	Running(ctx context.Context) (map[model.AppID]int, error) // VMs of each app that run
	Await(ctx context.Context, name model.Name) error         // until every guest of the app answers on its address
}

// VMs has the VMs of all apps.
type VMs interface {
	VMs(ctx context.Context) ([]model.VM, error) // all, ordered by app, then by number
	AppVMs(ctx context.Context, app model.AppID) ([]model.VM, error)
	VM(ctx context.Context, name model.Name) (model.VM, error)
	Restart(ctx context.Context, name model.Name) error
	Console(ctx context.Context, name model.Name, w io.Writer, follow bool) error
	Attach(ctx context.Context, name, app model.Name) (model.VM, error)
	Detach(ctx context.Context, name model.Name) error
}

// Images has the guest images.
type Images interface {
	Add(ctx context.Context, source image.Source) (image.Image, error)
	List() ([]image.Image, error)
}

// ImageRemover removes an image that no app uses. The fleet does it, since it
// knows what is in use.
type ImageRemover interface {
	RemoveImage(ctx context.Context, name model.Name) error
}

// Network is the host's side of the network.
type Network interface {
	Status(ctx context.Context) (wire.NetworkStatus, error)
	Check(ctx context.Context) ([]wire.Difference, error)
	Repair(ctx context.Context) ([]wire.Difference, error) // returns what was mended
	Explain(ctx context.Context, q verdict.Question) (verdict.Answer, error)
	Doctor(ctx context.Context) ([]doctor.Finding, error) // problems first
}

// Tracer sends a packet and finds out what the kernel does with it.
type Tracer interface {
	Trace(ctx context.Context, packet firewall.Flow) (verdict.Traced, error)
}

// Events tells what happened lately, and what happens, as it happens. The channel is
// closed when ctx ends.
type Events interface {
	Recent() []event.Event
	Subscribe(ctx context.Context) (recent []event.Event, events <-chan event.Event)
}

// Deps is what the API speaks for.
type Deps struct {
	Apps         Apps
	VMs          VMs
	Images       Images
	ImageRemover ImageRemover
	Network      Network
	Tracer       Tracer // nil: traces are not available
	Events       Events
	Metrics      http.Handler // answers /metrics

	Layout ipam.Layout  // turns the slot of a VM into its network
	DNS    []netip.Addr // resolvers named to guests
	Log    *slog.Logger
}

// New returns the handler of the whole API. The server that runs it may set any
// read time-out, which is lifted once a request was read; it must not set a write
// time-out, since consoles and events go on for as long as somebody listens. They
// end when the context of their request ends: a server that shuts down must end
// its base context, or it waits for them.
func New(deps Deps) http.Handler {
	mux := http.NewServeMux()
	api := humago.New(mux, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0", // https://spec.openapis.org/oas/v3.1.0
			Info: &huma.Info{
				Title:       "ZWRM",
				Version:     "1",
				Description: "MicroVMs with a network of their own. zwrmd answers on its unix socket and, with a bearer token, on TCP.",
			},
		},
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{problemFromHuma},
	})
	service{deps, make(streams, maxStreams)}.register(api)
	describe(api.OpenAPI())
	mux.Handle("GET /metrics", deps.Metrics)
	mux.HandleFunc("GET /healthz", healthy)
	mux.HandleFunc("GET /openapi.json", document(api.OpenAPI()))
	return &server{mux: mux, log: deps.Log}
}

// service answers the requests.
type service struct {
	Deps
	streams streams
}

func (s service) register(api huma.API) {
	s.registerApps(api)
	s.registerVMs(api)
	s.registerAttachments(api)
	s.registerImages(api)
	s.registerNetwork(api)
	s.registerExplain(api)
	s.registerEvents(api)
}

// answer is a response with one object.
type answer[T any] struct{ Body T }

// list is a response with an array, which is never null.
type list[T any] struct {
	Body []T `nullable:"false"`
}

// handle registers one operation whose handler may return any error.
func handle[I, O any](api huma.API, op huma.Operation, f func(context.Context, *I) (*O, error)) {
	op.BodyReadTimeout = -1 // the server has read the body, and bounded it
	op.MaxBodyBytes = -1
	ref := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[wire.Problem](), true, "")
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	op.Responses["default"] = &huma.Response{
		Description: "RFC 9457 problem document",
		Content:     map[string]*huma.MediaType{problemType: {Schema: ref}},
	}
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := f(ctx, in)
		if err != nil {
			return nil, newProblem(err)
		}
		return out, nil
	})
}

// describe corrects what huma cannot read off the Go types.
func describe(doc *huma.OpenAPI) {
	schemas := doc.Components.Schemas.Map()
	delete(schemas, "ErrorModel") // huma's own errors, which leave here as Problem
	delete(schemas, "ErrorDetail")
	asked := requestSchemas(doc)
	for name, schema := range schemas {
		if !asked[name] {
			schema.AdditionalProperties = nil // answers may grow; clients must not mind
		}
	}
	status := schemas["NetworkStatus"].Properties
	for _, name := range []string{"bridge", "last_repair"} {
		field := status[name]
		status[name] = &huma.Schema{
			Description: field.Description,
			AnyOf:       []*huma.Schema{{Ref: field.Ref}, {Type: "null"}},
		}
	}
}

// requestSchemas returns the names of the schemas that request bodies have.
func requestSchemas(doc *huma.OpenAPI) map[string]bool {
	names := map[string]bool{}
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Post, item.Patch} {
			if op == nil || op.RequestBody == nil {
				continue
			}
			for _, media := range op.RequestBody.Content {
				names[path.Base(media.Schema.Ref)] = true
			}
		}
	}
	return names
}

func document(doc *huma.OpenAPI) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.oai.openapi+json")
		_ = json.NewEncoder(w).Encode(doc) // fails only when the client is gone
	}
}

func healthy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n")
}

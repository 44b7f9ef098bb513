package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"zwrm/internal/event"
	"zwrm/internal/wire"
)

const (
	eventsType   = "text/event-stream" // https://html.spec.whatwg.org/multipage/server-sent-events.html
	eventTimeout = 30 * time.Second    // a client that takes no event for so long is let go
)

func (s service) registerEvents(api huma.API) {
	ref := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[wire.Event](), true, "")
	handle(api, huma.Operation{
		OperationID: "follow-events", Method: http.MethodGet, Path: "/v1/events",
		Summary:     "Follow what happens",
		Description: "Server-sent events from now on: the name of each is its kind, its data is one JSON object. A client that is too slow misses some.",
		Responses: map[string]*huma.Response{"200": {
			Description: "The data of each event",
			Content:     map[string]*huma.MediaType{eventsType: {Schema: ref}},
		}},
	}, s.events)
}

func (s service) events(context.Context, *struct{}) (*huma.StreamResponse, error) {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		_, w := humago.Unwrap(hc)
		out := &stream{w: w, control: http.NewResponseController(w), contentType: eventsType}
		events := s.Events.Subscribe(hc.Context())
		// A comment tells the client at once that it hears what happens from here on.
		if _, err := fmt.Fprint(out, ": listening\n\n"); err != nil {
			return
		}
		for e := range events {
			if out.send(e) != nil {
				return // the client is gone, or does not read
			}
		}
	}}, nil
}

// send writes one event.
func (s *stream) send(e event.Event) error {
	data, err := json.Marshal(wire.Event{At: e.At.UTC(), Kind: string(e.Kind), Object: e.Object, Message: e.Message})
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(eventTimeout)) // fails only where there are no deadlines
	_, err = fmt.Fprintf(s, "event: %s\ndata: %s\n\n", e.Kind, data)
	return err
}

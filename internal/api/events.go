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
	handle(api, huma.Operation{
		OperationID: "recent-events", Method: http.MethodGet, Path: "/v1/events/recent",
		Summary:     "List what happened lately, the oldest first",
		Description: "The last events since zwrmd started, some 1,000 of them. The log has them all.",
	}, s.recentEvents)
}

// followEvents is how events are asked for.
type followEvents struct {
	Recent bool `query:"recent" doc:"begin with what happened lately"`
}

func (s service) recentEvents(context.Context, *struct{}) (*list[wire.Event], error) {
	recent := s.Events.Recent()
	out := make([]wire.Event, len(recent))
	for i, e := range recent {
		out[i] = wireEvent(e)
	}
	return &list[wire.Event]{out}, nil
}

func (s service) events(_ context.Context, in *followEvents) (*huma.StreamResponse, error) {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		_, w := humago.Unwrap(hc)
		leave := s.streams.enter(w)
		if leave == nil {
			return
		}
		defer leave()
		out := &stream{w: w, control: http.NewResponseController(w), contentType: eventsType, patience: eventTimeout}
		recent, events := s.Events.Subscribe(hc.Context())
		// A comment tells the client at once that it hears what happens from here on.
		if _, err := fmt.Fprint(out, ": listening\n\n"); err != nil {
			return
		}
		if !in.Recent {
			recent = nil
		}
		for _, e := range recent {
			if out.send(e) != nil {
				return // the client is gone, or does not read
			}
		}
		for e := range events {
			if out.send(e) != nil {
				return
			}
		}
	}}, nil
}

// send writes one event.
func (s *stream) send(e event.Event) error {
	data, err := json.Marshal(wireEvent(e))
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	_, err = fmt.Fprintf(s, "event: %s\ndata: %s\n\n", e.Kind, data)
	return err
}

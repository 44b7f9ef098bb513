package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

const (
	consoleType    = "text/plain; charset=utf-8"
	consoleTimeout = 5 * time.Minute // a client that takes nothing for so long, such as a pager, is let go
)

type consoleInput struct {
	VM     string `path:"vm"`
	Follow bool   `query:"follow" doc:"go on with what the guest writes from now on, until the client goes"`
}

// console streams what a guest wrote. The answer begins with the first byte, so
// that an error before it is still a problem document; one behind it breaks the
// connection off, which the client can tell from an end.
func (s service) console(_ context.Context, in *consoleInput) (*huma.StreamResponse, error) {
	name, err := parseName(in.VM)
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		_, w := humago.Unwrap(hc)
		leave := s.streams.enter(w)
		if leave == nil {
			return
		}
		defer leave()
		out := &stream{w: w, control: http.NewResponseController(w), contentType: consoleType, patience: consoleTimeout}
		err := s.VMs.Console(hc.Context(), name, out, in.Follow)
		switch {
		case err == nil:
			out.begin() // of a guest that has said nothing
		case !out.begun:
			newProblem(err).write(w)
		default:
			if hc.Context().Err() == nil {
				s.Log.Warn("console broken off", "vm", name, "error", err)
			}
			panic(http.ErrAbortHandler)
		}
	}}, nil
}

// stream is an answer that is sent as it is written.
type stream struct {
	w           http.ResponseWriter
	control     *http.ResponseController
	contentType string
	patience    time.Duration // with a client that does not read
	begun       bool
}

// begin sends the head of the answer.
func (s *stream) begin() {
	if s.begun {
		return
	}
	s.begun = true
	header := s.w.Header()
	header.Set("Content-Type", s.contentType)
	header.Set("X-Content-Type-Options", "nosniff") // a guest's bytes are no web page
	header.Set("Cache-Control", "no-store")
	s.w.WriteHeader(http.StatusOK)
}

// Write sends b at once.
func (s *stream) Write(b []byte) (int, error) {
	s.begin()
	_ = s.control.SetWriteDeadline(time.Now().Add(s.patience)) // fails only where there are no deadlines
	n, err := s.w.Write(b)
	if err != nil {
		return n, err
	}
	return n, s.control.Flush()
}

// maxStreams is how many consoles and events are followed at once. Each holds a
// connection, and others must have some.
const maxStreams = 256

// streams has room for those that are followed.
type streams chan struct{}

// enter counts a stream in, and returns what counts it out; nil: there is no room,
// which the client was told.
func (s streams) enter(w http.ResponseWriter) (leave func()) {
	select {
	case s <- struct{}{}:
		return func() { <-s }
	default:
		makeProblem(http.StatusServiceUnavailable, busy, "too many consoles and events are followed already", "end some of them").write(w)
		return nil
	}
}

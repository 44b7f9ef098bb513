package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"time"
)

const (
	maxBody     = 1 << 20          // bytes; the largest request has less than 1 KiB
	bodyTimeout = 10 * time.Second // a body that arrives more slowly is refused

	answerTimeout = time.Minute // a client that takes an answer more slowly is let go
)

// server is what every request goes through before it is answered.
type server struct {
	mux *http.ServeMux
	log *slog.Logger
}

// ServeHTTP reads the request whole, answers it, and logs both. A panic in a
// handler ends that request only.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	rec := &recorder{ResponseWriter: w}
	defer func() {
		cause := recover()
		if cause != nil && cause != any(http.ErrAbortHandler) {
			s.log.Error("panic in a request", "method", r.Method, "path", r.URL.Path, "cause", cause, "stack", string(debug.Stack()))
			if rec.status == 0 {
				makeProblem(http.StatusInternalServerError, "failed", "zwrmd has a defect that this request met", "journalctl -u zwrmd has the details").write(rec)
				cause = nil
			}
		}
		s.log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", rec.status, "bytes", rec.bytes, "took", time.Since(start))
		if cause != nil {
			panic(http.ErrAbortHandler) // the client must not take half an answer for a whole one
		}
	}()
	if p := readBody(w, r); p != nil {
		p.write(rec)
		return
	}
	if _, pattern := s.mux.Handler(r); pattern == "" {
		s.unknown(rec, r)
		return
	}
	s.mux.ServeHTTP(rec, r)
}

// unknown answers a request that no route matches.
func (s *server) unknown(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		probe := *r
		probe.Method = method
		if _, pattern := s.mux.Handler(&probe); pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if allowed == nil {
		makeProblem(http.StatusNotFound, codeOf(http.StatusNotFound),
			fmt.Sprintf("no such path: %q", r.URL.Path), "/openapi.json lists the paths").write(w)
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	makeProblem(http.StatusMethodNotAllowed, codeOf(http.StatusMethodNotAllowed),
		fmt.Sprintf("%s is not possible on %q", r.Method, r.URL.Path), "possible: "+strings.Join(allowed, ", ")).write(w)
}

// readBody replaces the request's body by what it read of it. One that says it
// is too long is not read at all: net/http answers and closes the connection.
//
// It also lifts the read deadline, that of the server and its own. Behind a
// handler net/http keeps reading from the connection, to notice when the client
// goes, and takes a deadline that passes for just that: it would end the context
// of a deploy that takes longer.
func readBody(w http.ResponseWriter, r *http.Request) *problem {
	control := http.NewResponseController(w)
	lift := func() { _ = control.SetReadDeadline(time.Time{}) } // fails only where there are no deadlines
	if r.ContentLength == 0 {
		lift()
		return nil
	}
	if r.ContentLength > maxBody {
		return bodyTooLarge()
	}
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return bodyTooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return makeProblem(http.StatusRequestTimeout, codeOf(http.StatusRequestTimeout),
			fmt.Sprintf("the body did not arrive within %s", bodyTimeout), "")
	case err != nil:
		return makeProblem(http.StatusBadRequest, codeOf(http.StatusBadRequest), fmt.Sprintf("read the body: %v", err), "")
	}
	lift()
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	return nil
}

func bodyTooLarge() *problem {
	return makeProblem(http.StatusRequestEntityTooLarge, tooLarge, fmt.Sprintf("the body is longer than %d bytes", maxBody), "")
}

// recorder notes what was answered. Unwrap lets http.ResponseController through.
type recorder struct {
	http.ResponseWriter
	status int // 0: nothing written yet
	bytes  int64
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(status int) {
	r.begin(status)
	r.ResponseWriter.WriteHeader(status)
}

// begin notes the status, and bounds how long the answer may take. Streams set bounds
// of their own behind this.
func (r *recorder) begin(status int) {
	if r.status != 0 {
		return
	}
	r.status = status
	_ = http.NewResponseController(r.ResponseWriter).SetWriteDeadline(time.Now().Add(answerTimeout)) // fails only where there are no deadlines
}

func (r *recorder) Write(b []byte) (int, error) {
	r.begin(http.StatusOK)
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

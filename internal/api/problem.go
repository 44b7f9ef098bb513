package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"

	"github.com/danielgtaylor/huma/v2"

	"zwrm/internal/model"
	"zwrm/internal/wire"
)

// problemType is the media type of a problem document (RFC 9457 section 3).
const problemType = "application/problem+json"

// The codes that only the HTTP side has; all others are model.Codes.
const (
	unauthorized model.Code = "unauthorized" // no token, or not the right one
	tooLarge     model.Code = "too_large"    // longer than a request may be
	busy         model.Code = "busy"         // more than zwrmd answers at once
)

// problem is an error that huma writes as a problem document.
type problem struct{ wire.Problem }

func (p *problem) Error() string             { return p.Detail }
func (p *problem) GetStatus() int            { return p.Status }
func (p *problem) ContentType(string) string { return problemType }

// newProblem returns what a client is told of an error. An error that is no
// *model.Problem is the host's failure; its message is shown, since whoever may
// use the API runs the host.
func newProblem(err error) *problem {
	code, hint := model.Internal, ""
	var known *model.Problem
	switch {
	case errors.As(err, &known):
		code, hint = known.Code, known.Hint
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		code, hint = model.Storage, "make room on that disk and try again; zwrmd needs no restart"
	case errors.Is(err, syscall.EROFS):
		code, hint = model.Storage, "make that disk writable and try again; zwrmd needs no restart"
	}
	return makeProblem(statusOf(code), code, err.Error(), hint)
}

func makeProblem(status int, code model.Code, detail, hint string) *problem {
	return &problem{wire.Problem{
		Title:  http.StatusText(status),
		Status: status,
		Detail: detail,
		Code:   string(code),
		Hint:   hint,
	}}
}

func statusOf(code model.Code) int {
	switch code {
	case model.Invalid:
		return http.StatusBadRequest
	case model.NotFound:
		return http.StatusNotFound
	case model.Conflict, model.Exhausted:
		return http.StatusConflict
	case model.Storage:
		return http.StatusInsufficientStorage
	default:
		return http.StatusInternalServerError
	}
}

// codeOf is the way back, for refusals that begin as a status.
func codeOf(status int) model.Code {
	switch {
	case status == http.StatusNotFound:
		return model.NotFound
	case status == http.StatusRequestEntityTooLarge:
		return tooLarge
	case status < http.StatusInternalServerError:
		return model.Invalid
	default:
		return model.Internal
	}
}

// problemFromHuma turns the errors that huma itself makes, of requests that do
// not fit the document, into problem documents of ours.
func problemFromHuma(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	var reasons []string
	for _, detail := range e.Errors {
		reasons = append(reasons, explain(detail))
	}
	if len(reasons) == 0 {
		reasons = []string{e.Detail}
	}
	return makeProblem(e.Status, codeOf(e.Status), strings.Join(reasons, "; "), ""), nil
}

// explain says in one line where a request is wrong, and what is there instead.
// Only short plain values are repeated: a body is not sent back to its sender.
func explain(e *huma.ErrorDetail) string {
	text := e.Message
	if e.Location != "" {
		text = e.Location + ": " + text
	}
	switch value := e.Value.(type) {
	case bool, float64:
		text += fmt.Sprintf(", not %v", value)
	case string:
		if value != "" && len(value) <= 64 && e.Location != "body" {
			text += fmt.Sprintf(", not %q", value)
		}
	}
	return text
}

// write sends the problem as the whole answer.
func (p *problem) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // fails only when the client is gone
}

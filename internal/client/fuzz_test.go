package client

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// FuzzProblem: whatever answers on the socket, what the client makes of a refusal is
// an error with words, and of bounded size.
func FuzzProblem(f *testing.F) {
	f.Add(404, []byte(`{"title":"Not Found","status":404,"detail":"no VM named \"x\"","code":"not_found","hint":"zwrm ps"}`))
	f.Add(500, []byte(`{"code":1}`))
	f.Add(403, []byte("<html>"))
	f.Add(409, []byte(`{"code":"conflict"}`))
	f.Add(301, bytes.Repeat([]byte("["), 20000))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		resp := &http.Response{StatusCode: status, Status: strconv.Itoa(status), Body: io.NopCloser(bytes.NewReader(body))}
		err := readProblem(resp)
		var problem *Problem
		if !errors.As(err, &problem) || problem.Code == "" {
			t.Fatalf("%d %q: %v", status, body, err)
		}
		if len(err.Error()) > 2*maxProblem {
			t.Errorf("the error has %d bytes", len(err.Error()))
		}
	})
}

// FuzzPath: a name is a part of a path and no more, or refused.
func FuzzPath(f *testing.F) {
	for _, name := range []string{"web-0", "..", "a/b", "a?b", "%2f", "{}", ""} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := path("/v1/vms/{}/console", name)
		if err != nil {
			return
		}
		middle, ok := strings.CutPrefix(got, "/v1/vms/")
		middle, end := strings.CutSuffix(middle, "/console")
		if !ok || !end || middle != name || strings.ContainsFunc(middle, func(r rune) bool { return r != '-' && !unicode.IsLower(r) && !unicode.IsDigit(r) }) {
			t.Errorf("path is %q", got)
		}
	})
}

package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"zwrm/internal/api/apitest"
	"zwrm/internal/wire"
)

// FuzzRequest: whatever is asked of whichever operation, the API does not fail: it
// answers what is wrong with the request as a problem document.
func FuzzRequest(f *testing.F) {
	operations := operations(f)
	for i, op := range operations {
		f.Add(i, "web", "", "", `{"name":"web","image":"debian","scale":3}`)
		if !strings.HasPrefix(op, http.MethodGet) {
			for _, body := range bodies() {
				f.Add(i, "web-0", "", "application/json", body)
			}
		}
	}
	for _, query := range []string{"wait=60s", "wait=-1s", "wait=1e9h", "app=web", "app=", "follow=true", "follow=maybe", "x=1",
		"source=web-0&destination=internet&port=80&protocol=tcp", "source=web-0&destination=internet&port=0", "source=%00&destination=::1", "a;b", "%zz"} {
		for i := range operations {
			f.Add(i, "web-0", query, "application/json", `{"scale":1}`)
		}
	}
	for _, name := range []string{"..", ".", "a/b", "%2e%2e", "\x00", strings.Repeat("a", 5000), "WEB", "ü"} {
		f.Add(2, name, "", "text/plain", "")
	}
	f.Fuzz(func(t *testing.T, i int, name, query, contentType, body string) {
		if i < 0 || i >= len(operations) {
			return
		}
		method, path, _ := strings.Cut(operations[i], " ")
		if before, _, ok := strings.Cut(path, "{"); ok {
			_, after, _ := strings.Cut(path, "}")
			path = before + url.PathEscape(name) + after
		}
		r, err := http.NewRequest(method, "http://zwrm"+path, strings.NewReader(body))
		if err != nil {
			return
		}
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", contentType)
		answerOf(t, deployed(t, 1), r, operations[i])
	})
}

// operations returns what the API's own document lists, as in "GET /v1/vms/{vm}". What
// goes on until the client goes is left out.
func operations(f *testing.F) []string {
	w := httptest.NewRecorder()
	newAPI(apitest.New()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
	var document struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(w.Body.Bytes(), &document); err != nil {
		f.Fatal(err)
	}
	var all []string
	for path, methods := range document.Paths {
		for method := range methods {
			if path != "/v1/events" {
				all = append(all, strings.ToUpper(method)+" "+path)
			}
		}
	}
	if len(all) < 15 {
		f.Fatalf("operations are %q", all)
	}
	slices.Sort(all)
	return all
}

func bodies() []string {
	return []string{
		`{"name":"web","image":"debian","scale":1e99}`,
		`{"name":"web","image":"debian","memory_mib":9223372036854775808}`,
		`{"name":"\ud800","image":"\u0000"}`,
		`{"name":"probe","app":"web","App":"x"}`,
		`{"name":"debian","kernel":"/etc/../../proc/self/mem","args":"\u001b[2J"}`,
		`{"source":"web-0","destination":"172.16.0.6","port":65536,"protocol":"icmp"}`,
		`{"scale":-0}`, `{"scale":"1"}`, `[[[[[[[[`, `{"name":null}`, `null`, ``, "{}{}", `{"name":"a","name":"b"}`,
	}
}

// answerOf asks the API and checks the form of its answer.
func answerOf(t *testing.T, host *apitest.Host, r *http.Request, operation string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := httptest.NewRecorder()
	if strings.HasSuffix(operation, "/console") {
		host.Say("web-0", "hello\n")
		cancel() // or it would follow
		defer func() {
			if cause := recover(); cause != nil && cause != any(http.ErrAbortHandler) {
				panic(cause)
			}
		}()
	}
	newAPI(host).ServeHTTP(w, r.WithContext(ctx))
	answer, contentType := bytes.TrimSpace(w.Body.Bytes()), w.Header().Get("Content-Type")
	switch {
	case w.Code >= http.StatusInternalServerError:
		t.Errorf("%s: %d %s", r.Method+" "+r.URL.String(), w.Code, answer)
	case w.Code >= http.StatusBadRequest:
		var problem wire.Problem
		if err := json.Unmarshal(answer, &problem); err != nil || contentType != "application/problem+json" || problem.Status != w.Code || problem.Code == "" || problem.Detail == "" {
			t.Errorf("%s: %d %s %s", r.Method+" "+r.URL.String(), w.Code, contentType, answer)
		}
	case contentType == "application/json" && !json.Valid(answer):
		t.Errorf("%s: %s", r.Method+" "+r.URL.String(), answer)
	}
}

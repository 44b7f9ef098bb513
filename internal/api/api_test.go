package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"

	"zwrm/internal/api"
	"zwrm/internal/api/apitest"
	"zwrm/internal/doctor"
	"zwrm/internal/model"
	"zwrm/internal/verdict"
	"zwrm/internal/wire"
)

// TestAnswers sends the requests of each file of testdata/answers to one host and
// compares what it answers, so that a reader sees the API as its clients do.
func TestAnswers(t *testing.T) {
	tests := map[string]func(*apitest.Host){
		"apps": nil,
		"vms": func(h *apitest.Host) {
			h.Silence()
		},
		"attachments": nil,
		"images":      nil,
		"network": func(h *apitest.Host) {
			h.Drift(drift())
		},
		"explain": twoApps,
		"doctor": func(h *apitest.Host) {
			h.Ail(doctor.Finding{Subject: "net.ipv4.ip_forward = 0", Severity: doctor.Problem, What: "stops all", Mend: "sysctl -w net.ipv4.ip_forward=1"})
			h.Ail(doctor.Finding{Subject: "KVM", Severity: doctor.Warning, What: "does not work here", Mend: "switch it on"})
		},
		"well":     nil,
		"not-json": nil,
		"refused":  nil,
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			host := newHost(t)
			if prepare != nil {
				prepare(host)
			}
			handler := newAPI(host)
			file := "answers/" + name + ".txt"
			script, err := os.ReadFile("testdata/" + file)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			for line := range strings.Lines(string(script)) {
				line = strings.TrimSpace(line)
				switch {
				case strings.HasPrefix(line, "#"):
					fmt.Fprintf(&out, "%s\n", line)
				case strings.HasPrefix(line, "> "):
					status, contentType, body := do(t, handler, strings.TrimPrefix(line, "> "))
					if strings.Contains(contentType, "json") {
						body = indent(t, body)
					}
					fmt.Fprintf(&out, "%s\n%s\n%s\n", line, strings.TrimSpace(fmt.Sprint(status, " ", contentType)), strings.TrimSpace(body))
					out.WriteString("\n")
				}
			}
			golden(t, file, []byte(strings.ReplaceAll(out.String(), "\n\n\n", "\n\n")))
		})
	}
}

// twoApps gives the host two VMs of the app web and one of db.
func twoApps(h *apitest.Host) {
	for _, app := range []struct {
		name  model.Name
		scale int
	}{{"web", 2}, {"db", 1}} {
		if _, err := h.Deploy(context.Background(), app.name, model.Spec{Image: "debian", Scale: app.scale}); err != nil {
			panic(err)
		}
	}
}

// TestTrace: without a tracer there is no trace, and with one the answer says whether
// the kernel did what the rules say.
func TestTrace(t *testing.T) {
	host := newHost(t)
	twoApps(host)
	deps := host.Deps()
	deps.Tracer = nil
	const ask = `POST /v1/network/explain {"source":"web-0","destination":"db-0","port":80}`
	status, _, body := do(t, api.New(deps), ask)
	if status != http.StatusConflict || !strings.Contains(body, "trace is not available") {
		t.Errorf("without a tracer: %d %s", status, body)
	}
	for traced, agrees := range map[verdict.Verdict]bool{verdict.Drop: true, verdict.Pass: false} {
		host.Stray(verdict.Traced{Verdict: traced, Rule: "accept", Table: "ip filter", Chain: "FORWARD"})
		status, _, body := do(t, newAPI(host), ask)
		var answer wire.Explanation
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK || answer.Trace == nil {
			t.Fatalf("%s: %d %s", traced, status, body)
		}
		want := wire.Trace{Verdict: string(traced), Rule: "accept", Table: "ip filter", Chain: "FORWARD", Agrees: agrees}
		if answer.Verdict != "drop" || *answer.Trace != want {
			t.Errorf("%s: %+v, trace %+v", traced, answer, *answer.Trace)
		}
	}
}

// TestErrorMapping: every kind of error, out of every handler, becomes a problem
// document with its code.
func TestErrorMapping(t *testing.T) {
	kinds := []struct {
		name   string
		err    error
		status int
		code   string
		hint   string
	}{
		{"invalid", model.Problemf(model.Invalid, "no"), 400, "invalid", ""},
		{"not found", model.Problemf(model.NotFound, "no").WithHint("look"), 404, "not_found", "look"},
		{"conflict", model.Problemf(model.Conflict, "no"), 409, "conflict", ""},
		{"exhausted", model.Problemf(model.Exhausted, "no"), 409, "exhausted", ""},
		{"failed", model.Problemf(model.Internal, "no"), 500, "failed", ""},
		{"wrapped", fmt.Errorf("start: %w", model.Problemf(model.Conflict, "no").WithHint("look")), 409, "conflict", "look"},
		{"joined", errors.Join(model.Problemf(model.Exhausted, "no"), errors.New("undo: no")), 409, "exhausted", ""},
		{"disk full", fmt.Errorf("write: %w", syscall.ENOSPC), 507, "storage", "make room on that disk and try again; zwrmd needs no restart"},
		{"disk read-only", fmt.Errorf("write: %w", syscall.EROFS), 507, "storage", "make that disk writable and try again; zwrmd needs no restart"},
		{"plain", errors.New("no"), 500, "failed", ""},
	}
	requests := []struct{ method, request string }{
		{"Apps", "GET /v1/apps"},
		{"Running", "GET /v1/apps"},
		{"App", "GET /v1/apps/web"},
		{"AppVMs", "GET /v1/apps/web"},
		{"Deploy", `POST /v1/apps {"name":"web","image":"debian"}`},
		{"App", `POST /v1/apps {"name":"web","image":"debian"}`},
		{"Await", `POST /v1/apps?wait=1s {"name":"web","image":"debian"}`},
		{"Scale", `PATCH /v1/apps/web {"scale":1}`},
		{"Await", `PATCH /v1/apps/web?wait=1s {"scale":1}`},
		{"Destroy", "DELETE /v1/apps/web"},
		{"VMs", "GET /v1/vms"},
		{"App", "GET /v1/vms?app=web"},
		{"AppVMs", "GET /v1/vms?app=web"},
		{"VM", "GET /v1/vms/web-0"},
		{"Restart", "POST /v1/vms/web-0/restart"},
		{"Console", "GET /v1/vms/web-0/console"},
		{"Attach", `POST /v1/attachments {"name":"probe","app":"web"}`},
		{"Detach", "DELETE /v1/attachments/probe"},
		{"List", "GET /v1/images"},
		{"Add", `POST /v1/images {"name":"alpine","kernel":"/k"}`},
		{"Status", "GET /v1/network"},
		{"Check", "GET /v1/network/check"},
		{"Repair", "POST /v1/network/repair"},
		{"Explain", "GET /v1/network/explain?source=web-0&destination=internet"},
		{"Explain", `POST /v1/network/explain {"source":"web-0","destination":"internet"}`},
		{"Trace", `POST /v1/network/explain {"source":"web-0","destination":"internet"}`},
		{"Doctor", "GET /v1/doctor"},
	}
	for _, request := range requests {
		for _, kind := range kinds {
			if request.method == "App" && strings.HasPrefix(request.request, "POST") && kind.status == 404 {
				continue // no such app yet: that is what deploy is for
			}
			t.Run(request.request+"/"+kind.name, func(t *testing.T) {
				host := deployed(t, 1)
				host.Fail(request.method, kind.err)
				status, contentType, body := do(t, newAPI(host), request.request)
				want := fmt.Sprintf(`{"title":%q,"status":%d,"detail":%q,"code":%q`, http.StatusText(kind.status), kind.status, kind.err, kind.code)
				if kind.hint != "" {
					want += fmt.Sprintf(`,"hint":%q`, kind.hint)
				}
				if body = strings.TrimSpace(body); status != kind.status || contentType != "application/problem+json" || body != want+"}" {
					t.Errorf("got %d %s\n%s\nwant %d\n%s}", status, contentType, body, kind.status, want)
				}
			})
		}
	}
}

// TestKeepsWhatIsLeftOut: a new image alone does not change scale, memory or CPUs.
func TestKeepsWhatIsLeftOut(t *testing.T) {
	host := newHost(t)
	handler := newAPI(host)
	want := model.Spec{Image: "debian", Scale: 3, MemoryMiB: 256, CPUs: 2}
	for _, request := range []string{
		`POST /v1/apps {"name":"web","image":"debian","scale":3,"memory_mib":256,"cpus":2}`,
		`POST /v1/apps {"name":"web","image":"debian"}`,
		`POST /v1/apps {"name":"web","image":"debian","scale":3}`,
	} {
		if status, _, body := do(t, handler, request); status != http.StatusOK {
			t.Fatalf("%s: %d %s", request, status, body)
		}
		apps, err := host.Apps(t.Context())
		if err != nil || len(apps) != 1 || apps[0].Spec != want {
			t.Fatalf("after %s: %+v, %v, want %+v", request, apps, err, want)
		}
	}
	if status, _, body := do(t, handler, `POST /v1/apps {"name":"web","image":"debian","scale":0}`); status != http.StatusOK {
		t.Fatalf("scale 0: %d %s", status, body)
	}
	if vms, _ := host.VMs(t.Context()); len(vms) != 0 {
		t.Errorf("scale 0 left %d VMs: it was taken for left out", len(vms))
	}
}

// TestDocument compares the OpenAPI document with the one that reviewers saw.
func TestDocument(t *testing.T) {
	status, contentType, body := do(t, newAPI(newHost(t)), "GET /openapi.json")
	if status != http.StatusOK || contentType != "application/vnd.oai.openapi+json" {
		t.Errorf("got %d %s", status, contentType)
	}
	golden(t, "openapi.json", []byte(indent(t, body)+"\n"))
}

// TestPanic: a defect in one handler costs that request only.
func TestPanic(t *testing.T) {
	deps := newHost(t).Deps()
	deps.Apps = nil
	server := httptest.NewServer(api.New(deps))
	defer server.Close()
	for _, path := range []string{"/v1/apps", "/v1/apps"} {
		resp, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusInternalServerError || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("got %s %s", resp.Status, resp.Header.Get("Content-Type"))
		}
	}
}

func TestRemote(t *testing.T) {
	const token = "s3cret"
	tests := []struct {
		name   string
		token  string
		header http.Header
		status int
	}{
		{"right", token, http.Header{"Authorization": {"Bearer s3cret"}}, 200},
		{"scheme in lower case", token, http.Header{"Authorization": {"bearer s3cret"}}, 200},
		{"none", token, nil, 401},
		{"wrong", token, http.Header{"Authorization": {"Bearer s3cres"}}, 401},
		{"begins right", token, http.Header{"Authorization": {"Bearer s3cret2"}}, 401},
		{"empty", token, http.Header{"Authorization": {"Bearer "}}, 401},
		{"other scheme", token, http.Header{"Authorization": {"Basic s3cret"}}, 401},
		{"server without a token", "", http.Header{"Authorization": {"Bearer "}}, 401},
		{"from a web page", token, http.Header{"Authorization": {"Bearer s3cret"}, "Origin": {"https://example.com"}}, 403},
		{"from a page without an origin", token, http.Header{"Authorization": {"Bearer s3cret"}, "Origin": {"null"}}, 403},
		{"empty origin", token, http.Header{"Authorization": {"Bearer s3cret"}, "Origin": {""}}, 403},
		{"of another site", token, http.Header{"Authorization": {"Bearer s3cret"}, "Sec-Fetch-Site": {"cross-site"}}, 403},
		{"of a page of this site, which there is none of", token, http.Header{"Authorization": {"Bearer s3cret"}, "Sec-Fetch-Site": {"same-origin"}}, 403},
		{"typed in by the user", token, http.Header{"Authorization": {"Bearer s3cret"}, "Sec-Fetch-Site": {"none"}}, 200},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			reached := false
			next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true })
			r := httptest.NewRequest(http.MethodGet, "/v1/apps", nil)
			r.Header = test.header
			w := httptest.NewRecorder()
			api.Remote(test.token, []string{"example.com"}, next).ServeHTTP(w, r)
			if w.Code != test.status || reached != (test.status == 200) {
				t.Errorf("got %d, reached the API: %t; want %d", w.Code, reached, test.status)
			}
			if w.Code != 200 && w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("refused with content type %q", w.Header().Get("Content-Type"))
			}
			if challenge := w.Header().Get("WWW-Authenticate"); (w.Code == 401) != (challenge == "Bearer") {
				t.Errorf("status %d with challenge %q", w.Code, challenge)
			}
		})
	}
}

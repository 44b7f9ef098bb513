package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"zwrm/internal/api"
	"zwrm/internal/api/apitest"
	"zwrm/internal/image"
	"zwrm/internal/model"
	"zwrm/internal/wire"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// newHost returns a host with the image "debian".
func newHost(t *testing.T) *apitest.Host {
	t.Helper()
	host := apitest.New()
	if _, err := host.Add(t.Context(), image.Source{Name: "debian", Kernel: "/images/debian/kernel"}); err != nil {
		t.Fatal(err)
	}
	return host
}

// deployed returns a host with the app web of n VMs.
func deployed(t *testing.T, n int) *apitest.Host {
	t.Helper()
	host := newHost(t)
	if _, err := host.Deploy(t.Context(), "web", model.Spec{Image: "debian", Scale: n}); err != nil {
		t.Fatal(err)
	}
	return host
}

// do sends one request, "METHOD PATH BODY", and returns the answer's status,
// content type and body.
func do(t *testing.T, handler http.Handler, request string) (status int, contentType, body string) {
	t.Helper()
	fields := strings.SplitN(request, " ", 3)
	var content io.Reader
	if len(fields) == 3 {
		content = strings.NewReader(fields[2])
	}
	r := httptest.NewRequestWithContext(t.Context(), fields[0], fields[1], content)
	if content != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w.Code, w.Header().Get("Content-Type"), w.Body.String()
}

func newAPI(host *apitest.Host) http.Handler { return api.New(host.Deps()) }

// golden compares got with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; look at the change with: go test ./internal/api -update && git diff\ngot:\n%s", path, got)
	}
}

// indent returns JSON as people read it.
func indent(t *testing.T, data string) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, []byte(data), "", "  "); err != nil {
		t.Fatalf("answer is not JSON: %v\n%s", err, data)
	}
	return strings.TrimSpace(out.String())
}

func drift() wire.Difference {
	return wire.Difference{Object: "link zvm3", Wanted: "up", Found: "down"}
}

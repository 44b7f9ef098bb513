package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"zwrm/internal/wire"
)

// listen returns a client of a server on a unix socket that ends with the test.
func listen(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "zwrm") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	c := New(socket)
	t.Cleanup(func() {
		c.Close()
		_ = server.Close()
		<-done
		_ = os.RemoveAll(dir)
	})
	return c
}

// TestRequests: each method asks what the API has for it.
func TestRequests(t *testing.T) {
	ctx := t.Context()
	three := 3
	tests := []struct {
		name string
		call func(*Client) error
		want string
	}{
		{"deploy", func(c *Client) error {
			_, err := c.Deploy(ctx, wire.Deploy{Name: "web", Image: "debian", Scale: &three}, 0)
			return err
		}, `POST /v1/apps {"name":"web","image":"debian","scale":3}`},
		{"deploy what is left out", func(c *Client) error {
			_, err := c.Deploy(ctx, wire.Deploy{Name: "web", Image: "debian"}, time.Minute)
			return err
		}, `POST /v1/apps?wait=1m0s {"name":"web","image":"debian"}`},
		{"scale", func(c *Client) error { _, err := c.Scale(ctx, "web", 0, 0); return err }, `PATCH /v1/apps/web {"scale":0}`},
		{"scale and wait", func(c *Client) error { _, err := c.Scale(ctx, "web", 2, 90*time.Second); return err }, `PATCH /v1/apps/web?wait=1m30s {"scale":2}`},
		{"destroy", func(c *Client) error { return c.Destroy(ctx, "web") }, `DELETE /v1/apps/web`},
		{"apps", func(c *Client) error { _, err := c.Apps(ctx); return err }, `GET /v1/apps`},
		{"all VMs", func(c *Client) error { _, err := c.VMs(ctx, ""); return err }, `GET /v1/vms`},
		{"VMs of an app", func(c *Client) error { _, err := c.VMs(ctx, "a&b"); return err }, `GET /v1/vms?app=a%26b`},
		{"restart", func(c *Client) error { return c.Restart(ctx, "web-0") }, `POST /v1/vms/web-0/restart`},
		{"console", func(c *Client) error { return c.Console(ctx, "web-0", io.Discard, false) }, `GET /v1/vms/web-0/console`},
		{"follow", func(c *Client) error { return c.Console(ctx, "web-0", io.Discard, true) }, `GET /v1/vms/web-0/console?follow=true`},
		{"attach", func(c *Client) error { _, err := c.Attach(ctx, wire.Attach{Name: "p", App: "web"}); return err }, `POST /v1/attachments {"name":"p","app":"web"}`},
		{"detach", func(c *Client) error { return c.Detach(ctx, "p") }, `DELETE /v1/attachments/p`},
		{"images", func(c *Client) error { _, err := c.Images(ctx); return err }, `GET /v1/images`},
		{"add image", func(c *Client) error { _, err := c.AddImage(ctx, wire.AddImage{Name: "d", Kernel: "/k"}); return err }, `POST /v1/images {"name":"d","kernel":"/k"}`},
		{"remove image", func(c *Client) error { return c.RemoveImage(ctx, "d") }, `DELETE /v1/images/d`},
		{"network", func(c *Client) error { _, err := c.NetworkStatus(ctx); return err }, `GET /v1/network`},
		{"check", func(c *Client) error { _, err := c.CheckNetwork(ctx); return err }, `GET /v1/network/check`},
		{"repair", func(c *Client) error { _, err := c.RepairNetwork(ctx); return err }, `POST /v1/network/repair`},
		{"explain a ping", func(c *Client) error {
			_, err := c.Explain(ctx, wire.Explain{Source: "a&b", Destination: "host"})
			return err
		},
			`GET /v1/network/explain?destination=host&source=a%26b`},
		{"explain a port", func(c *Client) error {
			_, err := c.Explain(ctx, wire.Explain{Source: "a", Destination: "2001:db8::1", Port: 53, Protocol: "udp"})
			return err
		}, `GET /v1/network/explain?destination=2001%3Adb8%3A%3A1&port=53&protocol=udp&source=a`},
		{"trace", func(c *Client) error {
			_, err := c.Trace(ctx, wire.Explain{Source: "a", Destination: "b", Port: 80})
			return err
		}, `POST /v1/network/explain {"source":"a","destination":"b","port":80}`},
		{"doctor", func(c *Client) error { _, err := c.Doctor(ctx); return err }, `GET /v1/doctor`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got string
			c := listen(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got = strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Method, r.URL, body))
				_, _ = io.WriteString(w, "null")
			})
			if err := test.call(c); err != nil || got != test.want {
				t.Errorf("sent %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

// TestNames: a name that would make another path is refused, and not sent.
func TestNames(t *testing.T) {
	c := listen(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("sent %s", r.URL) })
	for _, name := range []string{"", ".", "..", "a/b", "a?b", "%2e%2e", "a b", "A"} {
		calls := map[string]error{
			"scale":        func() error { _, err := c.Scale(t.Context(), name, 1, 0); return err }(),
			"destroy":      c.Destroy(t.Context(), name),
			"restart":      c.Restart(t.Context(), name),
			"console":      c.Console(t.Context(), name, io.Discard, false),
			"detach":       c.Detach(t.Context(), name),
			"remove image": c.RemoveImage(t.Context(), name),
		}
		for call, err := range calls {
			var problem *Problem
			if !errors.As(err, &problem) || problem.Code != "invalid" {
				t.Errorf("%s %q: %v", call, name, err)
			}
		}
	}
}

// TestProblem: a problem document arrives whole.
func TestProblem(t *testing.T) {
	c := listen(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"title":"Conflict","status":409,"detail":"no","code":"exhausted","hint":"look","later":1}`)
	})
	_, err := c.Apps(t.Context())
	var problem *Problem
	if !errors.As(err, &problem) {
		t.Fatalf("got %v", err)
	}
	want := wire.Problem{Title: "Conflict", Status: 409, Detail: "no", Code: "exhausted", Hint: "look"}
	if problem.Problem != want || err.Error() != "no" {
		t.Errorf("got %+v", problem.Problem)
	}
}

// TestNewerServer: an answer may have more than this client knows.
func TestNewerServer(t *testing.T) {
	c := listen(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[{"name":"web","later":{}}]`) })
	apps, err := c.Apps(t.Context())
	if err != nil || len(apps) != 1 || apps[0].Name != "web" {
		t.Errorf("got %+v, %v", apps, err)
	}
}

// TestBrokenConsole: a console that breaks off is no complete one.
func TestBrokenConsole(t *testing.T) {
	c := listen(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "booting\n")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	var out strings.Builder
	err := c.Console(t.Context(), "web-0", &out, false)
	if !errors.Is(err, io.ErrUnexpectedEOF) || out.String() != "booting\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

// TestCancel: a request ends with its context, and the error says so.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := listen(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if err := c.Destroy(ctx, "web"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	tests := []struct {
		err          error
		text, wanted string
	}{
		{syscall.ENOENT, "no such file or directory", "is zwrmd running?"},
		{syscall.ECONNREFUSED, "connection refused", "systemctl start zwrmd"},
		{syscall.EACCES, "permission denied", "group zwrm"},
		{syscall.EAGAIN, "resource temporarily unavailable", "may hang"},
		{os.ErrDeadlineExceeded, "i/o timeout", "may hang"},
	}
	for _, test := range tests {
		t.Run(test.text, func(t *testing.T) {
			err := unreachable("/s", os.NewSyscallError("connect", test.err))
			var e *UnreachableError
			if !errors.As(err, &e) || !errors.Is(err, test.err) || !strings.Contains(e.Hint, test.wanted) {
				t.Fatalf("got %#v", err)
			}
			if !strings.HasPrefix(err.Error(), `no zwrmd answers on "/s": `) || !strings.HasSuffix(err.Error(), test.text) {
				t.Errorf("got %q", err)
			}
		})
	}
}

// TestNoSocket: what is missed is the socket, as the kernel says it.
func TestNoSocket(t *testing.T) {
	err := New(filepath.Join(t.TempDir(), "s")).Destroy(t.Context(), "web")
	var e *UnreachableError
	if !errors.As(err, &e) || !strings.Contains(e.Hint, "is zwrmd running?") {
		t.Errorf("got %v", err)
	}
}

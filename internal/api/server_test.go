package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"zwrm/internal/api"
	"zwrm/internal/api/apitest"
	"zwrm/internal/model"
	"zwrm/internal/wire"
)

// zeros is a body without an end that counts what was taken of it.
type zeros struct {
	mu    sync.Mutex
	taken int64
}

func (z *zeros) Read(b []byte) (int, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.taken += int64(len(b))
	return len(b), nil
}

// TestBodyOf100MB: it is refused without being read whole, whether or not it
// says beforehand how long it is, and the client gets the answer.
func TestBodyOf100MB(t *testing.T) {
	const size = 100_000_000
	for _, test := range []struct {
		name   string
		length int64
	}{
		{"announced", size},
		{"chunked", -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(newAPI(newHost(t)))
			defer server.Close()
			source := &zeros{}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/v1/apps", io.LimitReader(source, size))
			if err != nil {
				t.Fatal(err)
			}
			request.ContentLength = test.length
			resp, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var problem wire.Problem
			if err := json.NewDecoder(resp.Body).Decode(&problem); err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusRequestEntityTooLarge || problem.Code != "too_large" {
				t.Errorf("got %s, %+v", resp.Status, problem)
			}
			source.mu.Lock()
			defer source.mu.Unlock()
			if source.taken > size/4 {
				t.Errorf("%d bytes were taken from the client", source.taken)
			}
		})
	}
}

// TestLongestBody: what is just not too long is read, and judged by what it says.
func TestLongestBody(t *testing.T) {
	const limit = 1 << 20
	handler := newAPI(newHost(t))
	body := func(length int) string {
		head, tail := `{"name":"web","image":"debian","pad":"`, `"}`
		return head + strings.Repeat("x", length-len(head)-len(tail)) + tail
	}
	if status, _, answer := do(t, handler, "POST /v1/apps "+body(limit)); status != http.StatusUnprocessableEntity || strings.Contains(answer, "xxx") {
		t.Errorf("body of %d bytes: got %d %.200s", limit, status, answer)
	}
	if status, _, answer := do(t, handler, "POST /v1/apps "+body(limit+1)); status != http.StatusRequestEntityTooLarge {
		t.Errorf("body of %d bytes: got %d %.200s", limit+1, status, answer)
	}
}

func TestOtherContentType(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/v1/apps", strings.NewReader("<app/>"))
	r.Header.Set("Content-Type", "text/xml")
	w := httptest.NewRecorder()
	newAPI(newHost(t)).ServeHTTP(w, r)
	if w.Code != http.StatusUnsupportedMediaType || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("got %d %s %s", w.Code, w.Header(), w.Body)
	}
}

// pipe is a listener whose connections are memory, so that a server's deadlines
// run on the clock of a synctest bubble.
type pipe struct {
	conns chan net.Conn
	once  sync.Once
	gone  chan struct{}
}

func newPipe() *pipe { return &pipe{conns: make(chan net.Conn), gone: make(chan struct{})} }

func (p *pipe) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

func (p *pipe) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.gone:
		return nil, net.ErrClosed
	}
}

func (p *pipe) Close() error   { p.once.Do(func() { close(p.gone) }); return nil }
func (p *pipe) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// slowApps takes an hour to scale, and ends early when its context does.
type slowApps struct{ *apitest.Host }

func (slowApps) Scale(ctx context.Context, name model.Name, n int) (model.App, error) {
	select {
	case <-time.After(time.Hour):
		return model.App{Name: name, Spec: model.Spec{Scale: n}}, nil
	case <-ctx.Done():
		return model.App{}, errors.New("given up")
	}
}

// serve runs a server as zwrmd does, on a pipe.
func serve(handler http.Handler) (listener *pipe, stop func()) {
	listener = newPipe()
	server := &http.Server{Handler: handler, ReadTimeout: 5 * time.Second, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	return listener, func() {
		_ = server.Close()
		<-done
	}
}

// TestLongRequest: a read deadline of the server that passes while a request is
// worked on does not end the request.
func TestLongRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := deployed(t, 1)
		deps := host.Deps()
		deps.Apps = slowApps{host}
		listener, stop := serve(api.New(deps))
		defer stop()
		conn := listener.dial()
		defer conn.Close()
		body := `{"scale":3}`
		if _, err := io.WriteString(conn, "PATCH /v1/apps/web HTTP/1.1\r\nHost: zwrm\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n"+body); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if answer, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
			t.Errorf("got %s %s", resp.Status, answer)
		}
	})
}

// TestClientGoes: a request whose client is gone is given up.
func TestClientGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := deployed(t, 1)
		deps := host.Deps()
		deps.Apps = slowApps{host}
		start := time.Now()
		listener, stop := serve(api.New(deps))
		conn := listener.dial()
		if _, err := io.WriteString(conn, "PATCH /v1/apps/web HTTP/1.1\r\nHost: zwrm\r\nContent-Length: 11\r\n\r\n"+`{"scale":3}`); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		synctest.Wait()
		stop()
		if took := time.Since(start); took >= time.Hour {
			t.Errorf("the request went on for %s", took)
		}
	})
}

// TestSlowBody: a client that sends a body and does not end it is let go.
func TestSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener, stop := serve(newAPI(newHost(t)))
		defer stop()
		conn := listener.dial()
		defer conn.Close()
		if _, err := io.WriteString(conn, "POST /v1/apps HTTP/1.1\r\nHost: zwrm\r\nContent-Length: 100\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusRequestTimeout || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("got %s %s", resp.Status, resp.Header)
		}
	})
}

// TestUnreadAnswer: a client that does not read its answer is let go, after a while that
// is longer for a console, which somebody may look at.
func TestUnreadAnswer(t *testing.T) {
	for path, patience := range map[string]time.Duration{"/v1/apps": time.Minute, "/v1/vms/web-0/console?follow=true": 5 * time.Minute, "/v1/events": 30 * time.Second} {
		t.Run(path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				host := deployed(t, 1)
				host.Say("web-0", "booting\n")
				listener, stop := serve(newAPI(host))
				defer stop()
				conn := listener.dial()
				defer conn.Close()
				if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: zwrm\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(patience + time.Second)
				synctest.Wait()
				if text, err := io.ReadAll(conn); err != nil || len(text) > 0 {
					t.Errorf("it got %q, %v", text, err)
				}
			})
		})
	}
}

package api_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"zwrm/internal/event"
)

// get begins a request on a real server; the stream ends with the test.
func get(t *testing.T, url string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = resp.Body.Close()
	})
	return resp
}

func readLine(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// TestFollowConsole: what the guest says arrives as it is said, line by line.
func TestFollowConsole(t *testing.T) {
	host := deployed(t, 1)
	server := httptest.NewServer(newAPI(host))
	t.Cleanup(server.Close)
	host.Say("web-0", "booting\n")
	resp := get(t, server.URL+"/v1/vms/web-0/console?follow=true")
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "text/plain; charset=utf-8" {
		t.Fatalf("got %s %s", resp.Status, got)
	}
	body := bufio.NewReader(resp.Body)
	for _, line := range []string{"booting\n", "hello\n", "world\n"} {
		if line != "booting\n" {
			host.Say("web-0", line)
		}
		if got := readLine(t, body); got != line {
			t.Errorf("got %q, want %q", got, line)
		}
	}
}

// TestConsole: without follow the console ends where it ends now.
func TestConsole(t *testing.T) {
	host := deployed(t, 1)
	host.Say("web-0", "booting\n\x1b[1mlogin:\xff ")
	server := httptest.NewServer(newAPI(host))
	t.Cleanup(server.Close)
	got, err := io.ReadAll(get(t, server.URL+"/v1/vms/web-0/console").Body)
	if err != nil || string(got) != "booting\n\x1b[1mlogin:\xff " {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestBrokenConsole: a console that breaks off in the middle is no complete one.
func TestBrokenConsole(t *testing.T) {
	host := deployed(t, 1)
	host.Say("web-0", "booting\n")
	host.Fail("Console", errors.New("read console: input/output error"))
	server := httptest.NewServer(newAPI(host))
	t.Cleanup(server.Close)
	resp := get(t, server.URL+"/v1/vms/web-0/console")
	got, err := io.ReadAll(resp.Body)
	if string(got) != "booting\n" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestEvents: events arrive as they happen, from the moment of the answer on.
func TestEvents(t *testing.T) {
	host := newHost(t)
	server := httptest.NewServer(newAPI(host))
	t.Cleanup(server.Close)
	host.Events.Publish(event.App, "web", "missed")
	resp := get(t, server.URL+"/v1/events")
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "text/event-stream" {
		t.Fatalf("got %s %s", resp.Status, got)
	}
	body := bufio.NewReader(resp.Body)
	if got := readLine(t, body) + readLine(t, body); got != ": listening\n\n" {
		t.Errorf("got %q", got)
	}
	host.Events.Publish(event.VM, "web-0", "running\nand <well>")
	host.Events.Publish(event.Repair, "link zvm3", "mended")
	for _, want := range []struct{ name, data string }{
		{"vm", `"kind":"vm","object":"web-0","message":"running\nand \u003cwell\u003e"}`},
		{"repair", `"kind":"repair","object":"link zvm3","message":"mended"}`},
	} {
		name, data, end := readLine(t, body), readLine(t, body), readLine(t, body)
		if name != "event: "+want.name+"\n" || !strings.HasPrefix(data, `data: {"at":"`) || !strings.HasSuffix(data, want.data+"\n") || end != "\n" {
			t.Errorf("got %q %q %q", name, data, end)
		}
	}
}

// TestNetworkRepair: the answer has what was mended, and the next one nothing.
func TestNetworkRepair(t *testing.T) {
	host := newHost(t)
	handler := newAPI(host)
	host.Drift(drift())
	status, _, body := do(t, handler, "POST /v1/network/repair")
	if status != http.StatusOK || !strings.Contains(body, `"differences":[{"object":"link zvm3","wanted":"up","found":"down"}]`) {
		t.Errorf("got %d %s", status, body)
	}
	status, _, body = do(t, handler, "POST /v1/network/repair")
	if status != http.StatusOK || !strings.Contains(body, `"differences":[]`) {
		t.Errorf("got %d %s", status, body)
	}
	if _, _, body := do(t, handler, "GET /v1/network/check"); strings.TrimSpace(body) != `{"in_sync":true,"differences":[]}` {
		t.Errorf("got %s", body)
	}
}

package api_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"zwrm/internal/api"
)

// remote asks a guarded handler that came to an address of this host.
func remote(handler http.Handler, from, to, host string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/v1/apps", nil)
	r.RemoteAddr, r.Host = from, host
	local := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(to))
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
	r.Header.Set("Authorization", "Bearer s3cret")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func ok() http.Handler { return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}) }

// TestRemoteHost: a name that a web page's server has lead here is not one of ours.
func TestRemoteHost(t *testing.T) {
	tests := []struct {
		to, host string
		status   int
	}{
		{"127.0.0.1:8080", "127.0.0.1:8080", 200},
		{"127.0.0.1:8080", "localhost:8080", 200},
		{"127.0.0.1:8080", "LocalHost", 200},
		{"127.0.0.1:8080", "localhost:9999", 200}, // forwarded
		{"[::1]:8080", "[::1]:8080", 200},
		{"[::1]:8080", "[::1]", 200},
		{"[::ffff:192.0.2.1]:8080", "192.0.2.1:8080", 200},
		{"192.0.2.1:8080", "vms.example.com", 200},
		{"192.0.2.1:8080", "VMs.Example.COM:8080", 200},
		{"192.0.2.1:8080", "localhost:8080", 421},
		{"192.0.2.1:8080", "192.0.2.2:8080", 421},
		{"192.0.2.1:8080", "evil.example", 421},
		{"192.0.2.1:8080", "vms.example.com.evil.example", 421},
		{"127.0.0.1:8080", "evil.example:8080", 421},
		{"127.0.0.1:8080", "", 421},
	}
	for _, test := range tests {
		t.Run(test.host+" at "+test.to, func(t *testing.T) {
			w := remote(api.Remote("s3cret", []string{"vms.example.com"}, ok()), "192.0.2.7:1234", test.to, test.host)
			if w.Code != test.status {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			if hungUp := w.Header().Get("Connection") == "close"; hungUp != (test.status != 200) {
				t.Errorf("status %d, hung up: %t", w.Code, hungUp)
			}
		})
	}
}

// TestLocal: on the socket only web pages are refused.
func TestLocal(t *testing.T) {
	for header, status := range map[string]int{"": 200, "Origin": 403, "Sec-Fetch-Site": 403} {
		r := httptest.NewRequest(http.MethodPost, "/v1/apps", nil)
		r.Host = "whatever"
		if header != "" {
			r.Header.Set(header, "null")
		}
		w := httptest.NewRecorder()
		api.Local(ok()).ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("with header %q: got %d, want %d", header, w.Code, status)
		}
	}
}

// TestRate: a client has so many requests at once and so many a second, whatever it
// does with its addresses; another client has as many.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := api.Remote("s3cret", nil, ok())
		passed := func(from func(i int) string) (n int) {
			for i := range 1000 {
				w := remote(handler, from(i), "127.0.0.1:8080", "localhost")
				switch {
				case w.Code == http.StatusOK:
					n++
				case w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), `"busy"`):
					t.Fatalf("got %d %s %s", w.Code, w.Header(), w.Body)
				}
			}
			return n
		}
		one := func(i int) string { return fmt.Sprintf("192.0.2.1:%d", 1024+i) }
		six := func(i int) string { return fmt.Sprintf("[2001:db8::%x]:80", i) }
		if n := passed(one); n != 200 {
			t.Errorf("%d requests passed at once, want 200", n)
		}
		if n := passed(six); n != 200 {
			t.Errorf("%d requests of a /64 passed at once, want 200", n)
		}
		time.Sleep(time.Second)
		if n := passed(one); n != 50 {
			t.Errorf("%d requests passed a second later, want 50", n)
		}
		time.Sleep(time.Hour)
		if n := passed(one); n != 200 {
			t.Errorf("%d requests passed after an hour, want 200", n)
		}
		// So many clients that not all can be remembered.
		all := passed(func(i int) string { return fmt.Sprintf("198.51.%d.%d:1", i/250, i%250) })
		if all != 1000 {
			t.Errorf("%d of 1000 clients had their request answered", all)
		}
	})
}

// TestStreams: so many follow at once and no more; who ends makes room.
func TestStreams(t *testing.T) {
	server := httptest.NewServer(newAPI(newHost(t)))
	t.Cleanup(server.Close)
	const most = 256
	var first *http.Response
	for i := range most {
		resp := get(t, server.URL+"/v1/events")
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("stream %d: %s", i, resp.Status)
		}
		if i == 0 {
			first = resp
		}
	}
	if resp := get(t, server.URL+"/v1/events"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one more stream: %s", resp.Status)
	}
	if resp := get(t, server.URL+"/v1/apps"); resp.StatusCode != http.StatusOK {
		t.Errorf("another request: %s", resp.Status)
	}
	_ = first.Body.Close()
	for deadline := time.Now().Add(time.Minute); ; {
		if get(t, server.URL+"/v1/events").StatusCode == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the end of a stream makes no room")
		}
	}
}

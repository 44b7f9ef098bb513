package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Local guards a handler that is reachable through the unix socket. Who may connect
// there is the file system's matter; what a web page makes a browser send, by way of
// a program that passes it on to the socket, is refused.
func Local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fromWebPage(r) {
			refuse(w, webPage())
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Remote guards a handler that is reachable over TCP. It lets through what carries
// the bearer token (RFC 6750) and calls this host by a name it has: one of the given
// ones, "localhost" or the address that it came to. Any other name may be one that a
// web page's server let lead here (DNS rebinding). An empty token lets nothing through.
//
// A client that sends more requests than it may is told to wait. One whose request is
// refused is hung up on, so that it holds no connection.
func Remote(token string, names []string, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token))
	clients := newClients()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !clients.admit(r.RemoteAddr) {
			w.Header().Set("Retry-After", "1")
			refuse(w, makeProblem(http.StatusTooManyRequests, busy, "too many requests", "wait a second before the next one"))
			return
		}
		if p := refusal(r, token, want, names); p != nil {
			if p.Status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			refuse(w, p)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// refusal returns why a request may not pass; nil: it may.
func refusal(r *http.Request, token string, want [sha256.Size]byte, names []string) *problem {
	switch {
	case fromWebPage(r):
		return webPage()
	case !knows(r, names):
		return makeProblem(http.StatusMisdirectedRequest, unauthorized, "the request is for another host",
			"a name by which clients call this host has to stand in [server] hosts")
	case token == "" || !bears(r, want):
		return makeProblem(http.StatusUnauthorized, unauthorized, "the request carries no valid token",
			"send the token of [server] token_file as \"Authorization: Bearer TOKEN\"")
	}
	return nil
}

// refuse answers a request that went no further, and hangs up.
func refuse(w http.ResponseWriter, p *problem) {
	w.Header().Set("Connection", "close")
	p.write(w)
}

// fromWebPage reports whether a web page had a browser send the request: a page
// cannot leave out the Origin of one that changes something, and no browser lets it
// say of another site's request that it is the user's own (Fetch Metadata). No page
// of ours exists.
func fromWebPage(r *http.Request) bool {
	_, origin := r.Header["Origin"]
	site, fetched := r.Header["Sec-Fetch-Site"]
	return origin || fetched && !slices.Equal(site, []string{"none"})
}

func webPage() *problem {
	return makeProblem(http.StatusForbidden, unauthorized, "requests of web pages are refused", "")
}

// knows reports whether the request calls this host by a name that it has. The port
// does not count: it is another one where the connection was forwarded.
func knows(r *http.Request, names []string) bool {
	name := r.Host
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	name = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]"))
	if slices.Contains(names, name) {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	here, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return false
	}
	if name == "localhost" {
		return here.Addr().Unmap().IsLoopback()
	}
	address, err := netip.ParseAddr(name)
	return err == nil && address.Unmap() == here.Addr().Unmap()
}

// bears reports whether the request carries the token of the sum. Sums are compared,
// which have equal lengths, so that the time it takes tells no length either.
func bears(r *http.Request, want [sha256.Size]byte) bool {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got := sha256.Sum256([]byte(given))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

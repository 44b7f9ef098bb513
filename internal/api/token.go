package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// RequireToken guards a handler that is reachable over TCP. It lets through what
// carries the bearer token (RFC 6750), and nothing that a browser sends for a web
// page: a page cannot leave out the Origin header of a request that changes
// something, and no page of ours exists. An empty token lets nothing through.
func RequireToken(token string, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := r.Header["Origin"]; ok {
			makeProblem(http.StatusForbidden, unauthorized, "requests of web pages are refused", "").write(w)
			return
		}
		scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(given)) // equal lengths, so that the comparison tells no length either
		if token == "" || !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			makeProblem(http.StatusUnauthorized, unauthorized, "the request carries no valid token",
				"send the token of [server] token_file as \"Authorization: Bearer TOKEN\"").write(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

package daemon

import (
	"net/http"
	"net/http/pprof"
	"strings"
)

// profilePath is where one asks what zwrmd spends time and memory on.
const profilePath = "/debug/pprof/"

// withProfiles adds the profiles of the runtime to a handler. They are for the socket
// alone: they show what is in memory, and one takes as long as it is asked to.
func withProfiles(next http.Handler) http.Handler {
	profiles := http.NewServeMux()
	profiles.HandleFunc("GET "+profilePath, pprof.Index)
	profiles.HandleFunc("GET "+profilePath+"profile", pprof.Profile)
	profiles.HandleFunc("GET "+profilePath+"trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, profilePath) {
			profiles.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

package daemon_test

import (
	"os"
	"path/filepath"
	"testing"

	"zwrm/test/zwrmtest"
)

// TestNoPlaceToListen: a zwrmd that cannot open the addresses of its API ends, and
// has not touched the network.
func TestNoPlaceToListen(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(token, []byte("0123456789abcdef"), 0o600))
	tests := []struct {
		name     string
		settings zwrmtest.Settings
		says     string
	}{
		{"no token", zwrmtest.Settings{"server.listen": `"127.0.0.1:8080"`, "server.token_file": `"/nonexistent/token"`}, "read token"},
		{"not an address of the host", zwrmtest.Settings{"server.listen": `"192.0.2.77:8080"`, "server.token_file": `"` + token + `"`},
			`listen on "192.0.2.77:8080"`},
		{"a file is in the way", zwrmtest.Settings{"server.socket": `"/etc/passwd"`}, "no socket is in the way"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := zwrmtest.NewHost(t)
			h.Foreign(t)
			before := h.Dump(t)
			r := h.NewDaemon(t, test.settings).Run(t)
			if r.Status != failed {
				t.Errorf("exit status %d, want %d", r.Status, failed)
			}
			contains(t, "stderr", r.Stderr, test.says)
			h.Same(t, before)
		})
	}
}

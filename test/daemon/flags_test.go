package daemon_test

import (
	"os"
	"testing"

	"zwrm/internal/version"
	"zwrm/test/zwrmtest"
)

// TestFlags: what zwrmd answers without starting.
func TestFlags(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	zwrmd := zwrmtest.Binary(t, "zwrmd")
	before := h.Dump(t)
	if r := zwrmtest.Try(t, h.Namespace, zwrmd, "--version"); r.Status != 0 || r.Stdout != "zwrmd "+version.Version+"\n" {
		t.Errorf("--version: %+v", r)
	}
	for _, args := range [][]string{{"--nosuch"}, {"argument"}, {"--config"}} {
		if r := zwrmtest.Try(t, h.Namespace, zwrmd, args...); r.Status != usage || r.Stdout != "" {
			t.Errorf("%v: exit status %d, stdout %q; want %d and nothing", args, r.Status, r.Stdout, usage)
		}
	}
	h.Same(t, before)
}

// TestGeneratedConfig: what --generate-config prints is accepted as it is, on a host
// that has all it needs.
func TestGeneratedConfig(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.NewDaemon(t, nil)
	r := zwrmtest.Try(t, h.Namespace, zwrmtest.Binary(t, "zwrmd"), "--generate-config")
	if r.Status != 0 || r.Stderr != "" {
		t.Fatalf("--generate-config: exit status %d, %s", r.Status, r.Stderr)
	}
	must(t, os.WriteFile(d.Config, []byte(r.Stdout), 0o644))
	before := h.Dump(t)
	if r := d.Run(t, "--check-config"); r.Status != 0 || r.Stdout+r.Stderr != "" {
		t.Errorf("--check-config: exit status %d, %s%s", r.Status, r.Stdout, r.Stderr)
	}
	h.Same(t, before)
}

// TestCheckWhileRunning: --check-config does not mind, nor disturb, a zwrmd that
// runs.
func TestCheckWhileRunning(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, private())
	d.Attach(t, "one", "web")
	before := h.Dump(t)
	if r := d.Run(t, "--check-config"); r.Status != 0 || r.Stdout+r.Stderr != "" {
		t.Errorf("--check-config: exit status %d, %s%s", r.Status, r.Stdout, r.Stderr)
	}
	h.Same(t, before)
}

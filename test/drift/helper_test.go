package drift_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"zwrm/internal/client"
	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// churn attaches and detaches VMs of two apps.
func churn(ctx context.Context, c *client.Client, worker int) error {
	for i := range 12 {
		name := fmt.Sprintf("vm-%d-%d", worker, i)
		if err := attach(ctx, c, name, fmt.Sprintf("app-%d", i%2)); err != nil {
			return err
		}
		if i%3 == 0 {
			continue // it stays
		}
		if err := c.Detach(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func attach(ctx context.Context, c *client.Client, name, app string) error {
	_, err := c.Attach(ctx, wire.Attach{Name: name, App: app})
	return err
}

// legacy has a zwrmd find the programs of iptables-legacy as iptables.
func legacy(t *testing.T, h *zwrmtest.Host) func(cmd *exec.Cmd) {
	t.Helper()
	dir := filepath.Join(h.Dir, "bin")
	must(t, os.Mkdir(dir, 0o755))
	for _, tool := range []string{"iptables", "ip6tables"} {
		for _, program := range []string{"", "-save", "-restore"} {
			path, err := exec.LookPath(tool + "-legacy" + program)
			must(t, err)
			must(t, os.Symlink(path, filepath.Join(dir, tool+program)))
		}
	}
	return func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "PATH="+dir+":"+os.Getenv("PATH")) }
}

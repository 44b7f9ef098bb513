package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestDependencies: the command asks zwrmd and does nothing to the host itself, so
// neither the database nor the kernel's interfaces belong into it.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	ours := []string{"cli", "client", "ipam", "model", "version", "wire"}
	for _, dep := range deps {
		for _, foreign := range []string{"modernc.org/sqlite", "github.com/vishvananda/netlink", "github.com/danielgtaylor/huma", "github.com/prometheus"} {
			if strings.HasPrefix(dep, foreign) {
				t.Errorf("%s is linked in", dep)
			}
		}
		if name, ok := strings.CutPrefix(dep, "zwrm/internal/"); ok && !slices.Contains(ours, name) {
			t.Errorf("%s is linked in; zwrm has %q of this module", dep, ours)
		}
	}
	if !slices.Contains(deps, "zwrm/internal/cli") {
		t.Errorf("go list -deps shows no zwrm/internal/cli, so it was not asked about zwrm: %q", deps)
	}
}

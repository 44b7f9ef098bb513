package guest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestModules(t *testing.T) {
	common := []string{"virtio_ring", "virtio", "virtio_mmio", "failover", "net_failover", "virtio_net"}
	if got, want := Modules(false), append(slices.Clone(common), "virtio_rng"); !slices.Equal(got, want) {
		t.Errorf("without root: got %v, want %v", got, want)
	}
	if got, want := Modules(true), append(slices.Clone(common), "virtio_blk", "virtio_rng"); !slices.Equal(got, want) {
		t.Errorf("with root: got %v, want %v", got, want)
	}
}

func TestLoadModulesBuiltIn(t *testing.T) {
	if err := LoadModules(t.TempDir(), Modules(true)); err != nil {
		t.Error(err)
	}
	if err := LoadModules(filepath.Join(t.TempDir(), "nowhere"), Modules(true)); err != nil {
		t.Error(err)
	}
}

// TestLoadModulesGoesOn: each file that is no module is named.
func TestLoadModulesGoesOn(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"virtio", "virtio_net"} {
		if err := os.WriteFile(filepath.Join(dir, name+".ko"), []byte("no module"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	err := LoadModules(dir, Modules(false))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`load module "virtio": `, `load module "virtio_net": `} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
}

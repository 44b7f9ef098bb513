package e2e_test

import (
	"testing"

	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// TestSameAppReachOtherAppNot: with private networking VMs of one app reach each
// other and those of another app do not, in both directions; without it none reaches
// another. The host reaches all of them, and all of them reach the internet.
func TestSameAppReachOtherAppNot(t *testing.T) {
	w := newWorld(t, private(), nil)
	defer w.end(t)
	guests := append(w.deploy(t, "web", 2), w.deploy(t, "db", 1)...)
	w.matrix(t, guests, func(from, to wire.VM) bool { return from.App == to.App })
	for _, vm := range guests {
		w.online(t, vm)
		w.reaches(t, vm, "ping?"+vm.Gateway)
	}

	// VMs that run keep running when private networking is switched off.
	w.daemon.Configure(t, zwrmtest.Settings{})
	w.daemon.Restart(t)
	w.matrix(t, guests, func(_, _ wire.VM) bool { return false })
	for _, vm := range guests {
		w.online(t, vm)
	}
}

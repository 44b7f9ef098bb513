package e2e_test

import (
	"fmt"
	"testing"

	"zwrm/internal/config"
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

// TestSwitchOfDataplane: another firewall takes over under VMs that run, and gives
// back; who reaches whom stays the same, and only one of the two has rules.
func TestSwitchOfDataplane(t *testing.T) {
	settings := private()
	settings["network.on_shutdown"] = `"keep"`
	w := newWorld(t, settings, nil)
	defer w.end(t)
	guests := append(w.deploy(t, "web", 2), w.deploy(t, "db", 1)...)
	for _, dataplane := range []config.Dataplane{config.Nftables, config.Iptables} {
		settings["network.firewall"] = fmt.Sprintf("%q", dataplane)
		w.daemon.Configure(t, settings)
		w.daemon.Restart(t)
		w.matrix(t, guests, func(from, to wire.VM) bool { return from.App == to.App })
		for _, vm := range guests {
			w.online(t, vm)
		}
		contains(t, "status", w.zwrm(t, "network", "status"), string(dataplane))
		w.zwrm(t, "network", "check") // exit status 4 if it differs
	}
	settings["network.on_shutdown"] = `"clean"`
	w.daemon.Configure(t, settings)
	w.daemon.Restart(t)
}

package restart_test

import (
	"net/netip"
	"testing"
	"time"

	"zwrm/internal/config"
	"zwrm/test/zwrmtest"
)

// TestCleanStop: a stop with on_shutdown = "clean" cuts VMs off, and the next start
// lets them go on. Connections between VMs live through that. One with the internet
// does not if the other side sends meanwhile: the host, whose rules are gone, knows of
// no such connection and says so. docs/upgrade.md tells that.
func TestCleanStop(t *testing.T) {
	t.Parallel()
	for _, dataplane := range []config.Dataplane{config.Iptables, config.Nftables} {
		t.Run(string(dataplane), func(t *testing.T) {
			t.Parallel()
			h := zwrmtest.NewHost(t)
			d := h.Start(t, settings(dataplane))
			a, b := d.Guest(t, "web-0", "web"), d.Guest(t, "web-1", "web")
			zwrmtest.Serve(t, h.Outside, "tcp/80")
			between := zwrmtest.NewStream(t, "tcp", a.Namespace, b.Namespace, netip.AddrPortFrom(b.Address(), 7000))
			internet := zwrmtest.NewStream(t, "tcp", a.Namespace, h.Outside, netip.AddrPortFrom(outsider().Addr(), 7000))
			between.Flows(t, "before", 100)
			internet.Flows(t, "before", 100)
			d.Stop(t)
			if _, err := zwrmtest.Ask(t, a.Namespace, "tcp", outsider(), time.Second); err == nil {
				t.Error("a VM reaches the internet while zwrmd is stopped")
			}
			d.Start(t)
			between.Flows(t, "after the next start", 100)
			if err := internet.Try(100, 20*time.Second); err == nil {
				t.Error("a connection with the internet lived through the stop, and docs/upgrade.md says it does not")
			}
			asks(t, "after the next start", a.Namespace, outsider())
		})
	}
}

package trace_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"zwrm/internal/firewall/trace"
	"zwrm/internal/model"
)

func dump(r trace.Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s by %q, masqueraded %t, out %d\n", r.Fate, r.Deciding, r.Masqueraded, r.Out)
	for _, s := range r.Steps {
		fmt.Fprintf(&b, "\t%s %s\n", s.Hook, s)
	}
	return b.String()
}

func TestX(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		t.Log(dump(w.fromVM(t, 1, outsideAddress, tcp(80))))
		t.Log(dump(w.fromVM(t, 1, "172.16.0.10", udp(80))))
		t.Log(dump(w.fromVM(t, 1, "172.16.0.14", model.Service{})))
		t.Log(dump(w.fromVM(t, 1, "172.16.0.5", model.Service{})))
		t.Log(dump(w.fromHost(t, "172.16.0.6")))
		t.Log(dump(w.received(t, "eth0", trace.NewPacket(netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("172.16.0.6"), tcp(80)), w.layout.GuestMAC(1))))
		t.Log(dump(w.received(t, "eth0", trace.NewPacket(netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("240.0.0.1"), tcp(80)), w.layout.GuestMAC(1))))
	})
}

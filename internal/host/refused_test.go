package host_test

import (
	"maps"
	"net/netip"
	"testing"

	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// Frames that nobody takes are counted of our TAPs, and of no other device.
func TestNotTaken(t *testing.T) {
	kernel, others := open(t)
	guest := guestOn(t, kernel, 1)
	guestOn(t, kernel, 2)
	if err := others.AddLink(host.Link{Name: "tap9", Kind: host.KindTAP, Group: model.Group(7)}); err != nil {
		t.Fatal(err)
	}
	own, gateway := macOf(netip.MustParseAddr("172.16.0.6")), ipam.GatewayMAC()
	send := func(dest ipam.MAC, rest ...byte) {
		t.Helper()
		frame := append(append(dest[:], own[:]...), rest...)
		if err := guest.Send(append(frame, make([]byte, 46)...)); err != nil {
			t.Fatal(err)
		}
	}
	send(gateway, 0x88, 0xb5)                   // a kind for experiments
	send(gateway, 0x81, 0x00, 0, 5, 0x88, 0xb5) // one with a VLAN tag
	send(own, 0x88, 0xb5)                       // for somebody else
	if err := guest.Ping(netip.MustParseAddr("172.16.0.5")); err != nil {
		t.Fatal(err)
	}
	frames, err := kernel.NotTaken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[int]uint64{others.index("zvm1"): 3, others.index("zvm2"): 0}
	if !maps.Equal(frames, want) {
		t.Errorf("counters are %v, want %v", frames, want)
	}
}

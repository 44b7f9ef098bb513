package host_test

import (
	"sync/atomic"
	"testing"

	"zwrm/internal/effect"
	"zwrm/internal/host"
	"zwrm/internal/ipam"
)

// TestAddressesTogether: TAPs that are made together get their addresses together, since
// the kernel goes through all that there are for each that comes by itself.
func TestAddressesTogether(t *testing.T) {
	var addressed counter
	open(t) // for what it cleans up
	kernel, err := host.Open(&addressed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kernel.Close() })
	var taps []host.TAP
	for slot := range ipam.Slot(32) {
		taps = append(taps, tap(slot))
	}
	if err := kernel.CreateTAP(t.Context(), taps...); err != nil {
		t.Fatal(err)
	}
	if n := addressed.n.Load(); n != 2 {
		t.Errorf("%d TAPs got their addresses in %d steps, not in 2", len(taps), n)
	}
}

// counter counts how often addresses are set.
type counter struct{ n atomic.Int64 }

func (c *counter) Before(op effect.Op) error {
	if op == "host.set-address-and-up" {
		c.n.Add(1)
	}
	return nil
}

func (*counter) After(effect.Op) {}

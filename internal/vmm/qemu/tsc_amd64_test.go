package qemu

import (
	"context"
	"errors"
	"testing"
)

// TestSoftTSC measures twice. A guest's clock goes wrong by as much as the
// measurement does, and NTP in a guest mends 500 parts per million.
func TestSoftTSC(t *testing.T) {
	first, err := softTSC(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second, err := softTSC(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if first < 100_000 || max(first-second, second-first) > first/2000 {
		t.Errorf("TSC runs with %d kHz, or is it %d?", first, second)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := softTSC(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("softTSC: %v, want that the context ended", err)
	}
}

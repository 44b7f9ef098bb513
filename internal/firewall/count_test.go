package firewall_test

import (
	"maps"
	"testing"

	"zwrm/internal/firewall"
)

// TestTally: what was counted stays counted when the rules are written anew, by us
// and by others.
func TestTally(t *testing.T) {
	var tally firewall.Tally
	expect := func(want firewall.Drops) {
		t.Helper()
		if got := tally.Sum(); !maps.Equal(got, want) {
			t.Errorf("sum %v, want %v", got, want)
		}
	}
	expect(firewall.Drops{})
	tally.Observe(firewall.Drops{"spoofed": {5, 500}, "host": {1, 60}})
	tally.Observe(firewall.Drops{"spoofed": {7, 700}, "host": {1, 60}})
	expect(firewall.Drops{"spoofed": {7, 700}, "host": {1, 60}})

	tally.Reset()
	expect(firewall.Drops{"spoofed": {7, 700}, "host": {1, 60}})
	tally.Observe(firewall.Drops{"spoofed": {9, 900}, "host": {0, 0}})
	expect(firewall.Drops{"spoofed": {16, 1600}, "host": {1, 60}})

	tally.Observe(firewall.Drops{"spoofed": {2, 200}}) // somebody else began them again
	expect(firewall.Drops{"spoofed": {18, 1800}, "host": {1, 60}})
}

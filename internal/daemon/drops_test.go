package daemon

import "testing"

// TestFrames: the sum never goes down, whatever becomes of the TAPs.
func TestFrames(t *testing.T) {
	var f frames
	for _, step := range []struct {
		what string
		now  map[int]uint64
		want uint64
	}{
		{"no TAP", map[int]uint64{}, 0},
		{"two", map[int]uint64{4: 3, 5: 0}, 3},
		{"more on one", map[int]uint64{4: 7, 5: 0}, 7},
		{"not told", nil, 7},
		{"one gone", map[int]uint64{5: 1}, 8},
		{"another of its number", map[int]uint64{4: 2, 5: 1}, 10},
		{"begun again at less", map[int]uint64{4: 1, 5: 1}, 11},
		{"all gone", map[int]uint64{}, 11},
	} {
		if got := f.sum(step.now); got != step.want {
			t.Errorf("%s: %d, want %d", step.what, got, step.want)
		}
	}
}

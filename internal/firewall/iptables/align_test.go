package iptables

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestAlign(t *testing.T) {
	tests := []struct{ name, wanted, found, want string }{
		{"same", "abc", "abc", ""},
		{"both empty", "", "", ""},
		{"all missing", "ab", "", "missing 1, missing 2"},
		{"all extra", "", "ab", "extra 1, extra 2"},
		{"one missing", "abc", "ac", "missing 2"},
		{"one extra", "ac", "abc", "extra 2"},
		{"one changed", "abc", "axc", "changed 2 at 2"},
		{"changed and extra", "abc", "axyc", "changed 2 at 2, extra 3"},
		{"changed and missing", "abcd", "axd", "changed 2 at 2, missing 3"},
		{"missing here, extra there", "abc", "bcx", "missing 1, extra 3"},
		{"last moved to the top", "abcd", "dabc", "moved 4 at 1"},
		{"first moved to the end", "abcd", "bcda", "moved 1 at 4"},
		{"reversed", "abc", "cba", "moved 3 at 1, moved 2 at 2"},
		{"doubled", "ab", "aab", "extra 2"},
		{"wanted twice", "aba", "ab", "missing 3"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, e := range align(letters(test.wanted), letters(test.found)) {
				got = append(got, e.String())
			}
			if strings.Join(got, ", ") != test.want {
				t.Errorf("got %q, want %q", strings.Join(got, ", "), test.want)
			}
		})
	}
}

// TestAlignExplains: doing what the edits say always turns found into wanted, and
// no edit is named twice.
func TestAlignExplains(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	word := func() []string {
		w := make([]string, random.IntN(8))
		for i := range w {
			w[i] = string(rune('a' + random.IntN(6)))
		}
		return w
	}
	for range 20000 {
		wanted, found := word(), word()
		edits := align(wanted, found)
		touchedWanted, touchedFound := map[int]bool{}, map[int]bool{}
		for _, e := range edits {
			if (e.wanted > 0 && touchedWanted[e.wanted]) || (e.found > 0 && touchedFound[e.found]) {
				t.Fatalf("%v -> %v: %v names a rule twice", found, wanted, edits)
			}
			touchedWanted[e.wanted], touchedFound[e.found] = true, true
		}
		if a, b := untouched(wanted, touchedWanted), untouched(found, touchedFound); !slices.Equal(a, b) {
			t.Fatalf("%v -> %v: %v leaves %v and %v", found, wanted, edits, b, a)
		}
	}
}

func untouched(words []string, touched map[int]bool) []string {
	var out []string
	for i, w := range words {
		if !touched[i+1] {
			out = append(out, w)
		}
	}
	return out
}

func letters(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "")
}

// String returns the edit as in "moved 4 at 1".
func (e edit) String() string {
	switch {
	case e.found == 0:
		return fmt.Sprintf("missing %d", e.wanted)
	case e.wanted == 0:
		return fmt.Sprintf("extra %d", e.found)
	case e.moved:
		return fmt.Sprintf("moved %d at %d", e.wanted, e.found)
	}
	return fmt.Sprintf("changed %d at %d", e.wanted, e.found)
}

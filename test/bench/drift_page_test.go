package bench_test

import (
	"os"
	"strings"
	"testing"
)

// TestDriftPage: the page has a row with figures for each change that is timed.
func TestDriftPage(t *testing.T) {
	text, err := os.ReadFile(driftPage)
	must(t, err)
	for _, s := range spoilings() {
		_, rest, found := strings.Cut(string(text), "\n| "+s.what+" | ")
		line, _, _ := strings.Cut(rest, "\n")
		if !found || strings.Count(line, " · ") < 4 {
			t.Errorf("the page has no figures of %q: %q; make bench-drift takes them", s.what, line)
		}
	}
}

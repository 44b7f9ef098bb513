package docs_test

import (
	"os"
	"testing"

	"zwrm/test/bench/figures"
)

// TestDataplanesPage: the page has a figure for everything that was promised, as the
// benchmark writes them (make bench-dataplanes).
func TestDataplanesPage(t *testing.T) {
	text, err := os.ReadFile("../../docs/dataplanes.md")
	if err != nil {
		t.Fatal(err)
	}
	if err := figures.Check(string(text)); err != nil {
		t.Error(err)
	}
}

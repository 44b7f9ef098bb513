package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestGuarantees: each line of a table of docs/GUARANTEES.md has tests as its proof,
// and every one is where the page says.
func TestGuarantees(t *testing.T) {
	const page = "../../docs/GUARANTEES.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	links := regexp.MustCompile(`\[(Test\w+)\]\(([^)]+)\)`)
	promises := 0
	for line := range strings.Lines(string(text)) {
		promise, proof, ok := strings.Cut(strings.Trim(line, "|\n "), " | ")
		if !ok || proof == "proof" {
			continue
		}
		promises++
		proofs := links.FindAllStringSubmatch(proof, -1)
		if len(proofs) == 0 || links.ReplaceAllString(proof, "") != strings.Repeat(", ", len(proofs)-1) {
			t.Errorf("%q has no test, or more than tests, as its proof: %s", promise, proof)
		}
		for _, link := range proofs {
			source, err := os.ReadFile(filepath.Join(filepath.Dir(page), link[2]))
			if err != nil {
				t.Errorf("%q: %v", promise, err)
			} else if !strings.Contains(string(source), "\nfunc "+link[1]+"(t *testing.T)") {
				t.Errorf("%q: there is no %s in %s", promise, link[1], link[2])
			}
		}
	}
	if promises == 0 {
		t.Error("the page promises nothing")
	}
}

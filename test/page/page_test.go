package page_test

import (
	"os"
	"path/filepath"
	"testing"

	"zwrm/test/page"
)

// TestFigures: they take the place of those in the page, and of nothing else.
func TestFigures(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("before\n<!-- figures -->\nold\n<!-- end -->\nafter\n")
	for range 2 {
		if err := page.Write(path, "new\n"); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "before\n<!-- figures -->\nnew\n<!-- end -->\nafter\n" {
		t.Errorf("page %q, %v", got, err)
	}
	if got, err := page.Read(path); err != nil || got != "new\n" {
		t.Errorf("figures %q, %v", got, err)
	}
	write("<!-- end -->\n<!-- figures -->\n")
	if err := page.Write(path, "new\n"); err == nil {
		t.Error("a page without a place for figures was written")
	}
}

func TestTable(t *testing.T) {
	if got := page.Table([][]string{{"", "a"}, {"b", "1"}}); got != "|  | a |\n|---|---|\n| b | 1 |\n" {
		t.Errorf("table %q", got)
	}
	for n, want := range map[int]string{7: "7", 1000: "1,000", 1234567: "1,234,567"} {
		if got := page.Number(n); got != want {
			t.Errorf("%d is %q", n, got)
		}
	}
}

package spec_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// statement is a sentence, a line of a listing or a heading of the specification.
type statement struct {
	text    string
	heading bool
	tests   []string // "folder function"
}

// TestEverySentence fails when a sentence of the specification is not in
// sentences.txt, has no test there, or names one that does not exist.
func TestEverySentence(t *testing.T) {
	said, listed := page(t), table(t)
	for i := range max(len(said), len(listed)) {
		switch {
		case i >= len(listed):
			t.Fatalf("sentences.txt lacks %q", said[i])
		case i >= len(said):
			t.Fatalf("sentences.txt has %q, which the specification does not say", listed[i].text)
		case said[i] != listed[i].text:
			t.Fatalf("sentences.txt has %q where the specification says %q", listed[i].text, said[i])
		}
	}
	functions := map[string]map[string]bool{}
	for _, s := range listed {
		if !s.heading && len(s.tests) == 0 {
			t.Errorf("no test shows that %q", s.text)
		}
		for _, test := range s.tests {
			folder, function, _ := strings.Cut(test, " ")
			if functions[folder] == nil {
				functions[folder] = tests(t, folder)
			}
			if !functions[folder][function] {
				t.Errorf("%q names the test %q, which does not exist", s.text, test)
			}
		}
	}
}

// page returns the statements of the specification: its lines, and of a line with
// several sentences each.
func page(t *testing.T) []string {
	t.Helper()
	text := regexp.MustCompile(`(?s)<!--.*?-->`).ReplaceAllString(read(t, "networking.md"), "")
	end := regexp.MustCompile(`\. +([A-Z])`)
	var all []string
	for line := range strings.Lines(text) {
		for sentence := range strings.Lines(end.ReplaceAllString(line, ".\n$1")) {
			if sentence = strings.TrimSpace(sentence); sentence != "" {
				all = append(all, sentence)
			}
		}
	}
	return all
}

// table reads sentences.txt.
func table(t *testing.T) []statement {
	t.Helper()
	var all []statement
	for line := range strings.Lines(read(t, "sentences.txt")) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "" || strings.HasPrefix(line, "# "):
		case strings.HasPrefix(line, "\t") && len(all) > 0:
			last := &all[len(all)-1]
			last.tests = append(last.tests, strings.TrimSpace(line))
		default:
			text, heading := strings.CutPrefix(line, "= ")
			all = append(all, statement{text: text, heading: heading})
		}
	}
	return all
}

// tests returns the names of the test functions of a folder of the repository.
func tests(t *testing.T, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			if function, ok := decl.(*ast.FuncDecl); ok && isTest(function) {
				names[function.Name.Name] = true
			}
		}
	}
	return names
}

// isTest reports whether go test runs the function: TestX(t *testing.T).
func isTest(function *ast.FuncDecl) bool {
	params := function.Type.Params.List
	if function.Recv != nil || !strings.HasPrefix(function.Name.Name, "Test") || len(params) != 1 {
		return false
	}
	star, ok := params[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	selector, ok := star.X.(*ast.SelectorExpr)
	return ok && selector.Sel.Name == "T"
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

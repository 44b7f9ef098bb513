package unit_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"zwrm/test/zwrmtest"
)

// mostExposure is what systemd-analyze may find open, of 0 (closed) to 10. Most of what
// is left is zwrmd's work: links and rules, VMs as users of their own.
const mostExposure = 3.6

// unitFile is the unit as it is in the repository.
const unitFile = "../../dist/systemd/zwrmd.service"

// unit is the section [Service]: key -> words of all its lines.
type unit map[string][]string

func readUnit(path string) (unit, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	u := unit{}
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") {
			u[key] = append(u[key], strings.Fields(value)...)
		}
	}
	return u, nil
}

// installed writes the unit as install.sh does, for a zwrmd that is there.
func installed(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(unitFile)
	must(t, err)
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "sbin"), 0o755))
	must(t, os.Symlink(zwrmtest.Binary(t, "zwrmd"), filepath.Join(dir, "sbin", "zwrmd")))
	path := filepath.Join(dir, "zwrmd.service")
	must(t, os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "@PREFIX@", dir)), 0o644))
	return path
}

// TestUnitIsUnderstood: systemd knows every key and value of the unit.
func TestUnitIsUnderstood(t *testing.T) {
	said, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", installed(t)).CombinedOutput()
	if err != nil || strings.Contains(string(said), "zwrmd.service") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, said)
	}
}

// TestExposure: systemd-analyze finds the unit no more open than it was.
func TestExposure(t *testing.T) {
	said, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--no-pager", installed(t)).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze security: %v\n%s", err, said)
	}
	figure := regexp.MustCompile(`Overall exposure level for zwrmd\.service: ([0-9.]+)`).FindSubmatch(said)
	if figure == nil {
		t.Fatalf("no figure in\n%s", said)
	}
	exposure, err := strconv.ParseFloat(string(figure[1]), 64)
	must(t, err)
	t.Logf("systemd-analyze security: %.1f of 10", exposure)
	if exposure > mostExposure {
		t.Errorf("exposure is %.1f, at most %.1f was meant:\n%s", exposure, mostExposure, said)
	}
	page, err := os.ReadFile("../../docs/security.md")
	must(t, err)
	if want := "**" + string(figure[1]) + "**"; !strings.Contains(string(page), want) {
		t.Errorf("docs/security.md does not have the figure %s", want)
	}
}

// TestPage: the tests that docs/security.md names are there.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/security.md")
	must(t, err)
	names := regexp.MustCompile("`(Test[A-Za-z]+)`").FindAllSubmatch(page, -1)
	if len(names) < 20 {
		t.Errorf("the page names %d tests", len(names))
	}
	there := map[string]bool{}
	must(t, filepath.WalkDir("../..", func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, name := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(text, -1) {
			there[string(name[1])] = true
		}
		return err
	}))
	for _, name := range names {
		if !there[string(name[1])] {
			t.Errorf("there is no test %s", name[1])
		}
	}
}

// systemCalls returns the names that the unit allows.
func (u unit) systemCalls() ([]string, error) {
	words := u["SystemCallFilter"]
	var allowed []string
	deny := false
	for _, word := range words {
		if rest, ok := strings.CutPrefix(word, "~"); ok {
			deny, word = true, rest
		}
		names, err := expand(word)
		if err != nil {
			return nil, err
		}
		if deny {
			allowed = slices.DeleteFunc(allowed, func(name string) bool { return slices.Contains(names, name) })
		} else {
			allowed = append(allowed, names...)
		}
	}
	return allowed, nil
}

// expand returns the system calls of a group of systemd, or a single one.
func expand(word string) ([]string, error) {
	if !strings.HasPrefix(word, "@") {
		return []string{word}, nil
	}
	text, err := exec.Command("systemd-analyze", "syscall-filter", word).Output()
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line == word || strings.HasPrefix(line, "#") {
			continue
		}
		more, err := expand(line)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	return names, nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

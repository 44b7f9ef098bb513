package page

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Figures stand in their page between these lines.
const (
	begin = "<!-- figures -->\n"
	end   = "<!-- end -->\n"
)

// Write puts the figures into a page.
func Write(path, figures string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, _, after, err := cut(string(text))
	if err != nil {
		return fmt.Errorf("page %q: %w", path, err)
	}
	return os.WriteFile(path, []byte(before+begin+figures+end+after), 0o644)
}

// Read returns the figures of a page.
func Read(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	_, figures, _, err := cut(string(text))
	if err != nil {
		return "", fmt.Errorf("page %q: %w", path, err)
	}
	return figures, nil
}

func cut(text string) (before, figures, after string, err error) {
	before, rest, begins := strings.Cut(text, begin)
	figures, after, ends := strings.Cut(rest, end)
	if !begins || !ends {
		return "", "", "", errors.New("it has no place for figures")
	}
	return before, figures, after, nil
}

// Table returns a table in Markdown whose first row is its head.
func Table(rows [][]string) string {
	var out strings.Builder
	for i, cells := range rows {
		fmt.Fprintf(&out, "| %s |\n", strings.Join(cells, " | "))
		if i == 0 {
			out.WriteString(strings.Repeat("|---", len(cells)) + "|\n")
		}
	}
	return out.String()
}

// Number returns a number with a comma before the last three digits.
func Number(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", Number(n/1000), n%1000)
}

// Hardware describes what figures were taken on: the machine, and versions that matter.
func Hardware(versions ...string) (string, error) {
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	model := runtime.GOARCH
	for line := range strings.Lines(string(cpuinfo)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%s, %d processors, %s", model, runtime.NumCPU(), strings.Join(versions, ", ")), nil
}

// Kernel returns the version of the kernel in words.
func Kernel() (string, error) {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "", err
	}
	return "Linux " + strings.TrimSpace(string(release)), nil
}

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// The formats of an answer.
const (
	formatTable = "table"
	formatJSON  = "json"
)

func (s *session) checkOutput() error {
	if s.output != formatTable && s.output != formatJSON {
		return usagef("output %q is neither \"table\" nor \"json\"", s.output)
	}
	return nil
}

// answer writes the answer of a command: the object v as JSON, or what text
// writes. It is written at once, so that there is never half of it.
func (s *session) answer(v any, text func(io.Writer)) error {
	var out bytes.Buffer
	if s.output == formatJSON {
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(v); err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
	} else {
		text(&out)
	}
	if _, err := s.stdout.Write(out.Bytes()); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

// done writes the answer of a command that has no object to show. As JSON that
// is nothing.
func (s *session) done(format string, args ...any) error {
	if s.output == formatJSON {
		return nil
	}
	if _, err := fmt.Fprintf(s.stdout, format+"\n", args...); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

func terminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// table writes rows under upper-case headers, or alone when there are none.
func table(w io.Writer, header []string, rows [][]string) {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if header != nil {
		fmt.Fprintln(out, strings.Join(header, "\t"))
	}
	for _, row := range rows {
		for i := range row {
			row[i] = cell(row[i])
		}
		fmt.Fprintln(out, strings.Join(row, "\t"))
	}
	_ = out.Flush() // w is memory
}

// cell returns what fits a table: one line, without control characters, since a
// guest or a VMM may have had a say in it.
func cell(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	line = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, line)
	if line == "" {
		return "-"
	}
	return line
}

// number shows 0 as nothing.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// count returns "1 VM" or "2 VMs".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

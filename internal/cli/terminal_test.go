package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"zwrm/internal/image"
	"zwrm/internal/model"
)

// tamed returns the text as a terminal gets it that is written in pieces of n bytes.
func tamed(t *testing.T, text string, n int) string {
	t.Helper()
	var out bytes.Buffer
	w := &tame{w: &out}
	for rest := []byte(text); len(rest) > 0; {
		piece := rest[:min(n, len(rest))]
		if written, err := w.Write(piece); err != nil || written != len(piece) {
			t.Fatalf("wrote %d of %d bytes: %v", written, len(piece), err)
		}
		rest = rest[len(piece):]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestTame(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"text", "[    0.0] Linux\r\nlogin:\tü€🙂\n", "[    0.0] Linux\r\nlogin:\tü€🙂\n"},
		{"colours", "\x1b[1;31mred\x1b[0m and \x1b[38:5:1mred\x1b[m", "\x1b[1;31mred\x1b[0m and \x1b[38:5:1mred\x1b[m\x1b[0m"},
		{"colours left on", "\x1b[7mall of it", "\x1b[7mall of it\x1b[0m"},
		{"clear the screen", "\x1b[2J\x1b[H", "^[[2J^[[H"},
		{"go up and rewrite", "\x1b[3A\x1b[2Kforged", "^[[3A^[[2Kforged"},
		{"title of the window", "\x1b]0;root@host\x07", "^[]0;root@host^G"},
		{"have it typed", "\x1b[6n\x1b[21t\x05\x1bZ", "^[[6n^[[21t^E^[Z"},
		{"8-bit sequences", "\x9b2J and \u009b2J", `\x9b2J and \x9b2J`},
		{"backspace, delete", "abc\b\b\x7f", "abc^H^H^?"},
		{"NUL", "\x00", "^@"},
		{"other direction", "\u202egnp.exe", `\u202egnp.exe`},
		{"no UTF-8", "\xff\xc3", `\xff\xc3`},
		{"sequence without end", "\x1b[1;3", "^[[1;3"},
		{"sequence that is too long", "\x1b[" + strings.Repeat("1;", 40) + "m", "^[[" + strings.Repeat("1;", 40) + "m"},
		{"two begins", "\x1b\x1b[1mx", "^[\x1b[1mx\x1b[0m"},
		{"private mode", "\x1b[?1049h\x1b[>1m", "^[[?1049h^[[>1m"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, n := range []int{1, 2, 3, len(test.text)} {
				if got := tamed(t, test.text, n); got != test.want {
					t.Errorf("in pieces of %d bytes: got %q, want %q", n, got, test.want)
				}
			}
		})
	}
}

// FuzzTame: whatever a guest writes, a terminal is told nothing but how text looks,
// however the text is cut.
func FuzzTame(f *testing.F) {
	for _, text := range []string{"boot\r\n", "\x1b[1;31mred\x1b[0m", "\x1b]0;title\x07", "\x9b2J", "\u009b2J", "\xf0\x9f\x99", "\x1b[", "\u2066"} {
		f.Add(text, 1)
	}
	f.Fuzz(func(t *testing.T, text string, n int) {
		if n < 1 || len(text) == 0 {
			return
		}
		whole := tamed(t, text, len(text))
		if pieces := tamed(t, text, n); pieces != whole {
			t.Fatalf("in pieces of %d bytes %q, at once %q", n, pieces, whole)
		}
		if !utf8.ValidString(whole) {
			t.Errorf("%q is no UTF-8", whole)
		}
		for rest := whole; rest != ""; {
			r, size := utf8.DecodeRuneInString(rest)
			if r == escape {
				end := strings.IndexByte(rest, 'm')
				if end < 2 || strings.Trim(rest[:end], "\x1b[0123456789;:") != "" {
					t.Fatalf("%q has a sequence that is not about looks", whole)
				}
				size = end + 1
			} else if unicode.IsControl(r) && !strings.ContainsRune("\n\r\t", r) {
				t.Fatalf("%q has the control character %q", whole, r)
			}
			rest = rest[size:]
		}
	})
}

// TestLogsOnTerminal: zwrm logs tames what a guest wrote for a terminal, unless it is
// told not to, and leaves it alone elsewhere.
func TestLogsOnTerminal(t *testing.T) {
	term := newTerminal(t)
	if _, err := term.host.Add(t.Context(), image.Source{Name: "debian", Kernel: "/k"}); err != nil {
		t.Fatal(err)
	}
	if _, err := term.host.Deploy(t.Context(), "web", model.Spec{Image: "debian", Scale: 1}); err != nil {
		t.Fatal(err)
	}
	term.host.Say("web-0", "\x1b[31mred\x1b[2J")
	const raw, tame = "\x1b[31mred\x1b[2J", "\x1b[31mred^[[2J\x1b[0m"
	for _, test := range []struct {
		command  string
		terminal bool
		want     string
	}{
		{"logs web-0", true, tame},
		{"logs web-0 --raw", true, raw},
		{"logs web-0", false, raw},
	} {
		read, write, err := os.Pipe()
		if err == nil && test.terminal {
			read, write, err = pseudoTerminal()
		}
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		if status := Run(t.Context(), strings.Fields(test.command), write, &stderr, term.env); status != exitDone {
			t.Errorf("%s: status %d, %s", test.command, status, stderr.String())
		}
		write.Close()
		got, _ := io.ReadAll(read) // a terminal that nobody has open any more ends with an error
		if string(got) != test.want {
			t.Errorf("%s, terminal %t: got %q, want %q", test.command, test.terminal, got, test.want)
		}
		read.Close()
	}
}

// pseudoTerminal returns both ends of a terminal (pty(7)).
func pseudoTerminal() (screen, program *os.File, err error) {
	if screen, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0); err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	return screen, program, err
}

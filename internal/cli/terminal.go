package cli

import (
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"
)

// Of ECMA-48: escape begins a sequence, and a sequence of this kind whose last byte
// is "m" says how the text behind it looks.
const (
	escape   = '\x1b'
	plain    = "\x1b[0m"
	maxStyle = 32 // bytes of such a sequence; longer ones are text
)

// tame writes to a terminal what a guest wrote. It lets through what makes text
// readable, colours among it, and shows all else that terminals obey as cat -v does:
// a guest could rewrite what stands above, rename the window, or have the terminal
// type for the user.
type tame struct {
	w       io.Writer
	pending []byte // begins a sequence or a character, whose end is still to come
	styled  bool
}

// Write takes any part of the text, of a character even.
func (t *tame) Write(p []byte) (int, error) {
	text := append(t.pending, p...)
	var out []byte
	for len(text) > 0 {
		n := 0
		if out, n = t.next(out, text); n == 0 {
			break
		}
		text = text[n:]
	}
	t.pending = append([]byte(nil), text...)
	if _, err := t.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close writes what is left of an end that never came, and takes colours back.
func (t *tame) Close() error {
	var out []byte
	for i, b := range t.pending {
		if i > 0 && t.pending[0] == escape {
			out = append(out, b) // of a sequence all else is text
		} else {
			out = visible(out, rune(b))
		}
	}
	t.pending = nil
	if t.styled {
		out = append(out, plain...)
	}
	_, err := t.w.Write(out)
	return err
}

// next appends what the text begins with, and returns how much of it that is; 0: more
// has to come first.
func (t *tame) next(out, text []byte) ([]byte, int) {
	if text[0] == escape {
		n, more := style(text)
		switch {
		case more:
			return out, 0
		case n > 0:
			t.styled = true
			return append(out, text[:n]...), n
		}
		return visible(out, escape), 1
	}
	if !utf8.FullRune(text) {
		return out, 0
	}
	r, n := utf8.DecodeRune(text)
	switch {
	case r == utf8.RuneError && n == 1:
		return visible(out, rune(text[0])), 1
	case r == '\n' || r == '\r' || r == '\t':
		return append(out, text[:n]...), n
	case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r):
		return visible(out, r), n
	}
	return append(out, text[:n]...), n
}

// style returns how long the sequence is that the text begins with, 0 when it is none
// about looks, and whether that is still open.
func style(text []byte) (n int, more bool) {
	for i, b := range text[1:min(len(text), maxStyle)] {
		switch {
		case i == 0 && b == '[':
		case i > 0 && b == 'm':
			return i + 2, false
		case i > 0 && (b >= '0' && b <= '9' || b == ';' || b == ':'):
		default:
			return 0, false
		}
	}
	return 0, len(text) < maxStyle
}

// visible appends a character that is not to be obeyed.
func visible(out []byte, r rune) []byte {
	switch {
	case r < ' ':
		return append(out, '^', byte(r)+'@')
	case r == '\x7f':
		return append(out, "^?"...)
	case r <= 0xff:
		return fmt.Appendf(out, `\x%02x`, r)
	}
	return fmt.Appendf(out, `\u%04x`, r)
}

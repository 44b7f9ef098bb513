package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// indented returns the text as an indenter has it that gets it in pieces of n bytes.
func indented(t *testing.T, text []byte, n int) (string, error) {
	t.Helper()
	var in indenter
	for len(text) > 0 {
		n = min(n, len(text))
		if _, err := in.Write(text[:n]); err != nil {
			t.Fatal(err)
		}
		text = text[n:]
	}
	parts, err := in.parts()
	return string(bytes.Join(parts, nil)), err
}

// TestIndentTruncated: half an answer is none.
func TestIndentTruncated(t *testing.T) {
	const whole = `[{"a":"b\"]"},[]]`
	for n := range len(whole) {
		if got, err := indented(t, []byte(whole[:n]), 3); err == nil {
			t.Errorf("%q is taken for whole: %q", whole[:n], got)
		}
	}
}

// TestIndentLong: a text of many parts is one.
func TestIndentLong(t *testing.T) {
	text := []byte(`[` + strings.Repeat(`{"name":"web-0","slot":7},`, 40_000) + `0]`)
	var want bytes.Buffer
	if err := json.Indent(&want, text, "", "  "); err != nil {
		t.Fatal(err)
	}
	got, err := indented(t, text, 4093)
	if err != nil || got != want.String()+"\n" {
		t.Errorf("%d bytes are indented as %d, %v, want %d", len(text), len(got), err, want.Len()+1)
	}
}

// FuzzIndent: whatever is JSON is indented as by encoding/json, in whichever pieces it
// comes.
func FuzzIndent(f *testing.F) {
	for _, text := range []string{
		`[]`, `{}`, `""`, `0`, `[{"name":"web-0","slot":7,"reason":"a \"b\" \\","ok":true},{"x":[[],{},[1,2]]}]`,
		"[ 1 ,\n2\t,\r{ } , { \"a\" : null } ]\n", `"\\\""`, `["é\u00e9", -1.5e+3]`,
	} {
		f.Add([]byte(text), 1)
		f.Add([]byte(text), 7)
	}
	f.Fuzz(func(t *testing.T, text []byte, n int) {
		if !json.Valid(text) || n < 1 {
			return
		}
		var want bytes.Buffer
		if err := json.Indent(&want, bytes.TrimSpace(text), "", "  "); err != nil {
			t.Fatal(err)
		}
		got, err := indented(t, text, n)
		if err != nil || got != want.String()+"\n" {
			t.Errorf("%q is indented as %q, %v, want %q", text, got, err, want.String())
		}
	})
}

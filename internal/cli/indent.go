package cli

import (
	"bytes"
	"io"
)

// partSize is how large the parts of a text are, in bytes.
const partSize = 256 << 10

// indenter indents one JSON value while it comes in, as json.Indent does with two
// spaces. It does not look whether it is JSON, only whether it has an end.
type indenter struct {
	whole   [][]byte // parts that are done: one text that grows would be copied again and again
	out     bytes.Buffer
	depth   int
	fresh   bool // an array or an object has begun, and nothing is in it yet
	quoted  bool // within a string
	escaped bool // behind a backslash
}

// Write takes any part of the text.
func (i *indenter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := 1
		if i.quoted {
			n = i.quote(rest)
		} else {
			i.next(rest[0])
		}
		rest = rest[n:]
	}
	if i.out.Len() >= partSize {
		i.cut()
		i.out.Grow(partSize + partSize/4)
	}
	return len(p), nil
}

func (i *indenter) cut() {
	i.whole = append(i.whole, i.out.Bytes())
	i.out = bytes.Buffer{}
}

// quote takes what belongs to a string, and returns how much of it that is.
func (i *indenter) quote(text []byte) int {
	if i.escaped {
		i.escaped = false
		i.out.WriteByte(text[0])
		return 1
	}
	n := bytes.IndexByte(text, '"') + 1
	i.quoted = n == 0
	if i.quoted {
		n = len(text)
	}
	if at := bytes.IndexByte(text[:n], '\\'); at >= 0 {
		i.quoted, i.escaped = true, true
		n = at + 1
	}
	i.out.Write(text[:n])
	return n
}

// next takes what stands outside of strings.
func (i *indenter) next(b byte) {
	switch b {
	case ' ', '\t', '\r', '\n':
		return
	case ']', '}':
		i.depth--
		if !i.fresh {
			i.line()
		}
		i.fresh = false
		i.out.WriteByte(b)
		return
	}
	if i.fresh {
		i.line()
		i.fresh = false
	}
	i.out.WriteByte(b)
	switch b {
	case '[', '{':
		i.depth++
		i.fresh = true
	case ',':
		i.line()
	case ':':
		i.out.WriteByte(' ')
	case '"':
		i.quoted = true
	}
}

func (i *indenter) line() {
	i.out.WriteByte('\n')
	for range i.depth {
		i.out.WriteString("  ")
	}
}

// parts returns the value on lines of its own, in parts.
func (i *indenter) parts() ([][]byte, error) {
	if i.depth != 0 || i.quoted || i.out.Len() == 0 && i.whole == nil {
		return nil, io.ErrUnexpectedEOF
	}
	i.out.WriteByte('\n')
	i.cut()
	return i.whole, nil
}

package nfnetlink

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// fake is a socket whose answers a test makes.
type fake struct {
	answer func(try int) ([]netlink.Message, error)
	asked  int
	fresh  bool // a request has no answer yet
}

func (f *fake) SendMessages(messages []netlink.Message) ([]netlink.Message, error) {
	f.asked++
	f.fresh = true
	return messages, nil
}

func (f *fake) Receive() ([]netlink.Message, error) {
	if !f.fresh {
		return nil, os.ErrDeadlineExceeded
	}
	f.fresh = false
	return f.answer(f.asked)
}

func (f *fake) Discard() error                  { f.fresh = false; return nil }
func (f *fake) SetReadDeadline(time.Time) error { return nil }
func (f *fake) Close() error                    { return nil }

// TestInsist: what changes nothing is asked again while its answer gets lost, for
// a bounded time; a change is not made again, nor anything after another error.
func TestInsist(t *testing.T) {
	var b Batch
	b.NewTable("t", 0, nil)
	asks := map[string]func(c *Conn) error{
		"Generation": func(c *Conn) error { _, err := c.Generation(); return err },
		"Table":      func(c *Conn) error { _, err := c.Table("t"); return err },
		"Chains":     func(c *Conn) error { _, err := c.Chains("t"); return err },
		"Rules":      func(c *Conn) error { _, err := c.Rules("t"); return err },
		"Sets":       func(c *Conn) error { _, err := c.Sets("t"); return err },
		"Elements":   func(c *Conn) error { _, err := c.Elements("t", "s"); return err },
		"Check":      func(c *Conn) error { return c.Check(b) },
	}
	for name, ask := range asks {
		for _, fault := range []error{unix.EINTR, unix.ENOBUFS} {
			for _, test := range []struct {
				faults, asked int
				want          error
			}{{0, 1, nil}, {1, 2, nil}, {askTries - 1, askTries, nil}, {askTries, askTries, fault}} {
				f := &fake{answer: func(try int) ([]netlink.Message, error) {
					if try <= test.faults {
						return nil, fault
					}
					return nil, nil
				}}
				err := ask(New(f))
				if !errors.Is(err, test.want) || test.want == nil && err != nil || f.asked != test.asked {
					t.Errorf("%s, %v for %d times: %v after %d requests, want %v after %d", name, fault, test.faults, err, f.asked, test.want, test.asked)
				}
			}
		}
		f := &fake{answer: func(int) ([]netlink.Message, error) { return nil, unix.EPERM }}
		if err := ask(New(f)); !errors.Is(err, unix.EPERM) || f.asked != 1 {
			t.Errorf("%s: %v after %d requests, want EPERM after 1", name, err, f.asked)
		}
	}
	f := &fake{answer: func(int) ([]netlink.Message, error) { return nil, unix.EINTR }}
	if err := New(f).Commit(b); !errors.Is(err, unix.EINTR) || f.asked != 1 {
		t.Errorf("Commit: %v after %d requests, want EINTR after 1", err, f.asked)
	}
}

// TestBrokenAnswer: an answer that cannot be read is an error, never taken for one
// that says that there is nothing.
func TestBrokenAnswer(t *testing.T) {
	reads := map[string]func(c *Conn) error{
		"Generation": func(c *Conn) error { _, err := c.Generation(); return err },
		"Table":      func(c *Conn) error { _, err := c.Table("t"); return err },
		"Chains":     func(c *Conn) error { _, err := c.Chains("t"); return err },
		"Rules":      func(c *Conn) error { _, err := c.Rules("t"); return err },
		"Sets":       func(c *Conn) error { _, err := c.Sets("t"); return err },
		"Elements":   func(c *Conn) error { _, err := c.Elements("t", "s"); return err },
	}
	for what, data := range map[string][]byte{
		"no header":           {1, 0},
		"longer than it is":   {1, 0, 0, 0, 40, 0, 1, 0, 'x', 0, 0, 0},
		"shorter than itself": {1, 0, 0, 0, 3, 0, 1, 0},
	} {
		for name, read := range reads {
			f := &fake{answer: func(int) ([]netlink.Message, error) { return []netlink.Message{{Data: data}}, nil }}
			if err := read(New(f)); err == nil {
				t.Errorf("%s of an answer, %s: no error", name, what)
			}
		}
	}
}

// TestTooLarge: what the length of an attribute cannot tell is an error before
// anything is sent.
func TestTooLarge(t *testing.T) {
	var b Batch
	b.NewTable("t", 0, make([]byte, 1<<16))
	b.NewTable("u", 0, nil)
	f := &fake{}
	for name, err := range map[string]error{"Commit": New(f).Commit(b), "Check": New(f).Check(b)} {
		if err == nil || f.asked != 0 {
			t.Errorf("%s: %v after %d requests, want an error after none", name, err, f.asked)
		}
	}
}

// TestElementsInPieces: a request stays below 64 KiB with the longest comments.
func TestElementsInPieces(t *testing.T) {
	for _, n := range []int{0, 1, elementsPerRequest, elementsPerRequest + 1, 65536} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			elements := make([]Element, n)
			for i := range elements {
				elements[i] = Element{Key: make([]byte, 8), Userdata: make([]byte, 80)}
			}
			var b Batch
			b.AddElements("t", "s", elements)
			if b.err != nil {
				t.Fatal(b.err)
			}
			if got, want := len(b.messages), (n+elementsPerRequest-1)/elementsPerRequest; got != want {
				t.Errorf("%d requests, want %d", got, want)
			}
			for _, m := range b.messages {
				if len(m.Data) >= 1<<15 {
					t.Errorf("a request has %d bytes", len(m.Data))
				}
			}
		})
	}
}

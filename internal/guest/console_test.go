package guest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

func TestConsole(t *testing.T) {
	var b bytes.Buffer
	c := NewConsole(&b)
	c.Say("running %s", "/workload")
	c.Report(nil)
	c.Report(errors.Join(nil, nil))
	one, two := errors.New("one"), errors.New("two")
	c.Report(errors.Join(one, errors.Join(two, fmt.Errorf("open: %w", one))))
	want := "zwrm-init: running /workload\nzwrm-init: one\nzwrm-init: two\nzwrm-init: open: one\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

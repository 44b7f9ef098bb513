package guest

import (
	"fmt"
	"io"
)

// Console is where the init talks to people: the console of the guest.
type Console struct{ w io.Writer }

// NewConsole returns a Console that writes to w.
func NewConsole(w io.Writer) Console { return Console{w} }

// Say prints one line. It goes out in one write, since the kernel's messages
// and the workload's share the console. Nobody could be told that it failed.
func (c Console) Say(format string, args ...any) {
	fmt.Fprintf(c.w, "zwrm-init: %s\n", fmt.Sprintf(format, args...))
}

// Report prints an error, one line for each that was joined into it, and
// nothing for nil.
func (c Console) Report(err error) {
	if err == nil {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			c.Report(e)
		}
		return
	}
	c.Say("%v", err)
}

package model

import "fmt"

// Code is the kind of a Problem. Scripts read it; it never changes.
type Code string

// The codes.
const (
	Invalid   Code = "invalid"   // the request itself is wrong
	NotFound  Code = "not_found" // what it names is not there
	Conflict  Code = "conflict"  // what it names is there already, or in use
	Exhausted Code = "exhausted" // no room for it
	Storage   Code = "storage"   // the disk of zwrmd does not take it: full, or read-only
	Internal  Code = "failed"    // the host did not do it
)

// Problem is an error that a user can act on.
type Problem struct {
	Code Code
	Hint string // what to do; may be empty
	Err  error  // what is wrong
}

// Error returns what is wrong, without the hint.
func (p *Problem) Error() string { return p.Err.Error() }

// Unwrap returns what is wrong.
func (p *Problem) Unwrap() error { return p.Err }

// Problemf returns a Problem without a hint. The format is that of fmt.Errorf.
func Problemf(code Code, format string, args ...any) *Problem {
	return &Problem{Code: code, Err: fmt.Errorf(format, args...)}
}

// WithHint sets what the user should do.
func (p *Problem) WithHint(format string, args ...any) *Problem {
	p.Hint = fmt.Sprintf(format, args...)
	return p
}

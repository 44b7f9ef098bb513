package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"zwrm/internal/client"
)

// The codes of errors that zwrmd has no part in.
const (
	codeFailed      = "failed"
	codeUsage       = "usage"
	codeUnreachable = "unreachable"
	codeInterrupted = "interrupted"
)

// errDrift and errProblems end a command that found something not as it should be.
// The answer says what, so there is nothing more to say on stderr.
var (
	errDrift    = errors.New("the network is not as it should be")
	errProblems = errors.New("something on the host stands in the way")
)

// usageError says that the command line is wrong.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// flagError says in plain words what is wrong with a flag.
func flagError(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return &usageError{err}
	}
	kind := invalid.GetFlag().Value.Type()
	switch kind {
	case "int":
		kind = "whole number"
	case "duration":
		kind = "time such as 60s or 2m"
	}
	return usagef("--%s %q is not a %s", invalid.GetFlag().Name, invalid.GetValue(), kind)
}

// failure is an error as it is shown.
type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// report shows an error and returns the exit status that belongs to it.
func (s *session) report(cmd *cobra.Command, err error, asJSON bool) int {
	switch {
	case errors.Is(err, errDrift):
		return exitDrift
	case errors.Is(err, errProblems):
		return exitFailed
	}
	f, status := explain(cmd, err)
	if asJSON {
		encoder := json.NewEncoder(s.stderr)
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(map[string]failure{"error": f}) // there is nowhere left to say that stderr is gone
		return status
	}
	fmt.Fprintf(s.stderr, "zwrm: %s\n", f.Message)
	if f.Hint != "" {
		fmt.Fprintf(s.stderr, "hint: %s\n", f.Hint)
	}
	return status
}

func explain(cmd *cobra.Command, err error) (failure, int) {
	var usage *usageError
	var unreachable *client.UnreachableError
	var problem *client.Problem
	switch {
	case errors.As(err, &usage):
		return failure{codeUsage, err.Error(), fmt.Sprintf("%s --help shows how to use it", cmd.CommandPath())}, exitUsage
	case errors.As(err, &unreachable):
		return failure{codeUnreachable, err.Error(), unreachable.Hint}, exitUnreachable
	case errors.As(err, &problem):
		return failure{problem.Code, problem.Detail, problem.Hint}, exitFailed
	case errors.Is(err, context.Canceled):
		return failure{codeInterrupted, "interrupted before zwrmd answered", "zwrm ps shows what is there"}, exitFailed
	default:
		return failure{codeFailed, err.Error(), ""}, exitFailed
	}
}

// wantsJSON finds "-o json" in a command line that could not be parsed.
func wantsJSON(args []string) bool {
	line := " " + strings.Join(args, " ") + " "
	for _, form := range []string{"-o json", "-o=json", "-ojson", "--output json", "--output=json"} {
		if strings.Contains(line, " "+form+" ") {
			return true
		}
	}
	return false
}

package xtables_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"zwrm/internal/firewall/xtables"
)

func TestRunError(t *testing.T) {
	tests := []struct{ name, script, stdin, want string }{
		{"silent", "exit 3", "", "exit status 3"},
		{"many lines", "echo one >&2; echo >&2; echo ' two' >&2; exit 1", "", "exit status 1: one two"},
		{"noise", "echo '# Warning: iptables-legacy tables present, use iptables-legacy to see them' >&2; echo bad >&2; exit 1", "", "exit status 1: bad"},
		{"line of legacy", "echo 'iptables-restore: line 2 failed' >&2; exit 1", "a\nb\nc\n", `exit status 1: iptables-restore: line 2 failed; that line is "b"`},
		{"line of the parser", "echo 'Bad argument' >&2; echo 'Error occurred at line: 3' >&2; echo 'Try `x -h'\"'\"' for help.' >&2; exit 2", "a\nb\nc\n",
			`exit status 2: Bad argument Error occurred at line: 3; that line is "c"`},
		{"line past the end", "echo 'line 9 failed' >&2; exit 1", "a\n", "exit status 1: line 9 failed"},
		{"language", `echo "$LC_ALL" >&2; exit 1`, "", "exit status 1: C"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := new(xtables.Processes).Run(t.Context(), test.stdin, "/bin/sh", "-c", test.script)
			if want := `run "/bin/sh": ` + test.want; err == nil || err.Error() != want {
				t.Errorf("error %v\nwant  %s", err, want)
			}
		})
	}
}

func TestRunGivenUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := new(xtables.Processes).Run(ctx, "", "/bin/sh", "-c", "exec sleep 60")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want context.DeadlineExceeded", err)
	}
}

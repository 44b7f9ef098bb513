package qemu

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// talk lets a monitor ask for the status of a QEMU that says what it is told to:
// a line, or several, for the greeting and for each command.
func talk(t *testing.T, says []string) (string, error) {
	t.Helper()
	ours, its := net.Pipe()
	defer its.Close()
	go func() {
		commands := bufio.NewReader(its)
		for i, text := range says {
			if i > 0 {
				if _, err := commands.ReadString('\n'); err != nil {
					return
				}
			}
			if _, err := fmt.Fprintln(its, text); err != nil {
				return
			}
		}
		its.Close()
	}()
	m, err := openMonitor(t.Context(), ours)
	if err != nil {
		return "", err
	}
	defer m.close()
	return m.status()
}

func TestMonitor(t *testing.T) {
	hello, done := strings.TrimSpace(greeting), `{"return": {}}`
	event := `{"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 2}}`
	tests := []struct {
		name   string
		says   []string
		status string
		err    string
	}{
		{"status", []string{hello, done, `{"return": {"status": "running", "running": true}}`}, "running", ""},
		{"events between", []string{hello, event + "\n" + done, event + "\n" + event + "\n" + `{"return": {"status": "paused"}}`}, "paused", ""},
		{"no greeting", []string{done}, "", "does not greet"},
		{"not JSON", []string{"SSH-2.0"}, "", "invalid character"},
		{"ends at once", nil, "", "EOF"},
		{"ends before the answer", []string{hello, done}, "", `"query-status"`},
		{"refuses", []string{hello, `{"error": {"class": "CommandNotFound", "desc": "no such command"}}`}, "", "no such command"},
		{"other answer", []string{hello, `{"id": 1}`}, "", "it is none"},
		{"list for status", []string{hello, done, `{"return": []}`}, "", `"query-status"`},
		{"events only", []string{hello, strings.Repeat(event+"\n", maxEvents+1)}, "", "only events"},
		{"line without end", []string{strings.Repeat("x", 2*maxLine)}, "", "too long"},
		{"array", []string{"[]"}, "", "cannot unmarshal"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			status, err := talk(t, test.says)
			switch {
			case test.err == "" && err != nil:
				t.Errorf("status: %v", err)
			case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
				t.Errorf("status: %v, want an error with %q", err, test.err)
			case status != test.status:
				t.Errorf("status is %q, want %q", status, test.status)
			}
		})
	}
}

func TestMonitorEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, its := net.Pipe()
		defer its.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		if _, err := openMonitor(ctx, ours); err == nil {
			t.Error("a QEMU that says nothing was taken for one that greets")
		}
		if waited := time.Since(begin); waited != time.Minute {
			t.Errorf("waited for %s, want the minute that the context gives", waited)
		}
	})
}

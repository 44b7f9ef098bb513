package qemu

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
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

// FuzzMonitor: whatever QEMU says, asking for the status ends when QEMU does, and a
// status is one that QEMU said.
func FuzzMonitor(f *testing.F) {
	hello := strings.TrimSpace(greeting)
	f.Add([]byte(hello + "\n{\"return\": {}}\n{\"return\": {\"status\": \"running\"}}\n"))
	f.Add([]byte(hello + "\n{\"return\": null}\n"))
	f.Add([]byte(hello + "\n{\"event\": \"RESUME\"}\n{\"error\": {\"desc\": \"\\u001b[2J\"}}\n"))
	f.Add([]byte("{\"QMP\": []}\n{\"return\": {\"status\": {}}}"))
	f.Add([]byte("SSH-2.0\r\n"))
	f.Add([]byte(strings.Repeat("[", 20000)))
	f.Fuzz(func(t *testing.T, says []byte) {
		ours, its := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, its) }() // takes commands
		go func() {
			_, _ = its.Write(says)
			its.Close()
		}()
		m, err := openMonitor(t.Context(), ours)
		if err != nil {
			oneSafeLine(t, err)
			return
		}
		defer m.close()
		status, err := m.status()
		if err != nil {
			oneSafeLine(t, err)
		}
		if status != "" && !bytes.Contains(says, []byte("status")) {
			t.Errorf("status %q of %q", status, says)
		}
	})
}

// oneSafeLine checks that an error can be logged and shown: QEMU may have had a say in it.
func oneSafeLine(t *testing.T, err error) {
	t.Helper()
	if text := err.Error(); len(text) > 1000 || strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("error of %d bytes: %.1000q", len(text), text)
	}
}

// TestMonitorIsBounded: a QEMU that talks for ever takes neither memory nor time
// without bound.
func TestMonitorIsBounded(t *testing.T) {
	hello, event := greeting, `{"event": "RESUME"}`+"\n"
	for name, test := range map[string]struct{ once, forever, err string }{
		"a line without end":   {"", "x", "too long"},
		"events":               {hello, event, "only events"},
		"events before hello":  {"", event, "does not greet"},
		"nests":                {"", "[", "too long"},
		"empty lines":          {"", "\n", "unexpected end of JSON"},
		"a string without end": {`{"QMP": "`, "x", "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			ours, its := net.Pipe()
			said := make(chan int, 1)
			go func() { _, _ = io.Copy(io.Discard, its) }()
			go func() {
				n, _ := io.WriteString(its, test.once)
				for chunk := strings.Repeat(test.forever, 4096/len(test.forever)); ; {
					more, err := io.WriteString(its, chunk)
					if n += more; err != nil {
						said <- n
						return
					}
				}
			}()
			m, err := openMonitor(t.Context(), ours)
			if err == nil {
				m.close()
			}
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%v, want an error with %q", err, test.err)
			}
			if n := <-said; n > maxLine+8192 {
				t.Errorf("%d bytes were taken", n)
			}
			its.Close()
		})
	}
}

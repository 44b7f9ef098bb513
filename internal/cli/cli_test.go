package cli

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func noEnv(string) string { return "" }

// TestHelp compares the help of every command, and fails when one has no example.
func TestHelp(t *testing.T) {
	var out strings.Builder
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Name() == "help" || cmd.Name() == "completion" {
			return
		}
		if cmd.Example == "" && !cmd.HasSubCommands() {
			t.Errorf("%q has no example", cmd.CommandPath())
		}
		args := append(strings.Fields(cmd.CommandPath())[1:], "--help")
		var stdout, stderr bytes.Buffer
		if status := Run(t.Context(), args, &stdout, &stderr, noEnv); status != exitDone || stderr.Len() > 0 {
			t.Errorf("%q: exit status %d, stderr %q", cmd.CommandPath(), status, stderr.String())
		}
		out.WriteString("$ zwrm " + strings.Join(args, " ") + "\n" + stdout.String() + "\n")
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit((&session{env: noEnv}).root())
	golden(t, "testdata/help.txt", out.String())
}

// TestPlainASCII: help is readable on any terminal.
func TestPlainASCII(t *testing.T) {
	help, err := os.ReadFile("testdata/help.txt")
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range help {
		if b > 126 || b < 32 && b != '\n' {
			t.Fatalf("byte %#x at %d", b, i)
		}
	}
}

// TestOverview: alone, zwrm and its groups of commands show what they can do.
func TestOverview(t *testing.T) {
	for _, args := range [][]string{{}, {"image"}, {"network"}, {"help"}} {
		var alone, asked bytes.Buffer
		status := Run(t.Context(), args, &alone, io.Discard, noEnv)
		if len(args) == 1 && args[0] == "help" {
			args = nil
		}
		Run(t.Context(), append(args, "--help"), &asked, io.Discard, noEnv)
		if status != exitDone || alone.String() != asked.String() {
			t.Errorf("%q: exit status %d, %s", args, status, alone.String())
		}
	}
}

func TestParseMemory(t *testing.T) {
	tests := []struct {
		in   string
		want int // MiB; 0: refused
	}{
		{"128M", 128}, {"128MiB", 128}, {"1G", 1024}, {"2GiB", 2048}, {"1M", 1}, {"2047G", 2047 * 1024},
		{"", 0}, {"128", 0}, {"128m", 0}, {"128MB", 0}, {"128K", 0}, {"1T", 0}, {"0M", 0}, {"-1M", 0}, {"+1M", 0},
		{"1.5G", 0}, {" 1G", 0}, {"1 G", 0}, {"M", 0}, {"MiB", 0}, {"2097152G", 0}, {"99999999999999999999M", 0},
	}
	for _, test := range tests {
		t.Run(test.in, func(t *testing.T) {
			got, err := parseMemory(test.in)
			if got != test.want || (err == nil) != (test.want > 0) {
				t.Errorf("got %d, %v; want %d", got, err, test.want)
			}
		})
	}
}

// TestUnreachable: a daemon that is not there has an exit status of its own and a
// word on what to do.
func TestUnreachable(t *testing.T) {
	dir := socketDir(t)
	refused := filepath.Join(dir, "refused.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: refused, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false) // as a zwrmd that was killed leaves it
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, socket, want string }{
		{"missing", filepath.Join(dir, "missing.sock"), "is zwrmd running?"},
		{"refused", refused, "start it with systemctl start zwrmd"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, args := range [][]string{{"--socket", test.socket, "ps"}, {"ps"}} {
				env := func(string) string { return test.socket }
				var stdout, stderr bytes.Buffer
				status := Run(t.Context(), args, &stdout, &stderr, env)
				if status != exitUnreachable || !strings.Contains(stderr.String(), test.want) || !strings.Contains(stderr.String(), test.socket) {
					t.Errorf("got %d %q", status, stderr.String())
				}
				if stdout.Len() > 0 {
					t.Errorf("stdout has %q", stdout.String())
				}
			}
		})
	}
}

// TestSocketFlag: --socket wins over ZWRM_SOCKET.
func TestSocketFlag(t *testing.T) {
	term := newTerminal(t)
	elsewhere := func(string) string { return filepath.Join(term.dir, "nowhere.sock") }
	if status := Run(t.Context(), []string{"apps", "--socket", term.socket}, io.Discard, io.Discard, elsewhere); status != exitDone {
		t.Errorf("exit status %d", status)
	}
}

// TestForeignServer: what answers on the socket may not be zwrmd.
func TestForeignServer(t *testing.T) {
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"not found", http.NotFound, "does another program listen on it?"},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, "read the answer of zwrmd"},
		{"redirects", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/v1/vms", http.StatusFound) }, "does another program listen on it?"},
		{"hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "ended the connection before it answered"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			socket := filepath.Join(socketDir(t), "s")
			serve(t, socket, test.handler)
			var stdout, stderr bytes.Buffer
			status := Run(t.Context(), []string{"--socket", socket, "destroy", "web"}, &stdout, &stderr, noEnv)
			if test.name == "no JSON" { // destroy reads no answer
				status = Run(t.Context(), []string{"--socket", socket, "ps", "-o", "json"}, io.Discard, io.Discard, noEnv)
				if status != exitFailed {
					t.Errorf("ps takes it for a list")
				}
				status = Run(t.Context(), []string{"--socket", socket, "apps"}, &stdout, &stderr, noEnv)
			}
			if status != exitFailed || !strings.Contains(stderr.String(), test.want) {
				t.Errorf("got %d %q", status, stderr.String())
			}
		})
	}
}

// full is an output on which nothing more fits.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// TestFullDisk: an answer that could not be written is a failure.
func TestFullDisk(t *testing.T) {
	term := newTerminal(t)
	for _, args := range [][]string{{"apps"}, {"apps", "-o", "json"}, {"version"}} {
		var stderr bytes.Buffer
		if status := Run(t.Context(), args, full{}, &stderr, term.env); status != exitFailed || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%q: got %d %q", args, status, stderr.String())
		}
	}
}

// TestTerminal: progress is for terminals.
func TestTerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if terminal(file) || terminal(&bytes.Buffer{}) {
		t.Error("a file or a buffer was taken for a terminal")
	}
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	if !terminal(tty) {
		t.Error("a terminal was not taken for one")
	}
}

package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"zwrm/internal/api"
	"zwrm/internal/api/apitest"
	"zwrm/internal/doctor"
	"zwrm/internal/event"
	"zwrm/internal/model"
	"zwrm/internal/verdict"
	"zwrm/internal/wire"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// TestScripts runs each file of testdata/scripts against a host of its own. The
// files read like a terminal:
//
//	# a comment
//	$ zwrm ARGUMENTS      a command line, words in quotes as in a shell
//	text                  what it wrote to stdout
//	! text                what it wrote to stderr
//	? 1                   its exit status, unless 0
//	@ say web-0 hello     something happens to the host
func TestScripts(t *testing.T) {
	folder, err := filepath.Abs("testdata/scripts") // each terminal is in a folder of its own
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(folder + "/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, file, newTerminal(t).play(t, string(script)))
		})
	}
}

// golden compares got with a file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; look at the change with: go test ./internal/cli -update && git diff\ngot:\n%s", file, got)
	}
}

// terminalFake is where a script is typed: a folder, and a host that answers.
type terminalFake struct {
	host   *apitest.Host
	socket string
	dir    string
}

func newTerminal(t *testing.T) *terminalFake {
	t.Helper()
	term := &terminalFake{host: apitest.New(), dir: socketDir(t)}
	term.socket = filepath.Join(term.dir, "zwrmd.sock")
	serve(t, term.socket, api.New(term.host.Deps()))
	t.Chdir(term.dir)
	return term
}

// socketDir returns a folder whose path leaves room for the name of a socket,
// which has 107 bytes in all (unix(7)).
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "zwrm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// serve answers on a unix socket until the test ends.
func serve(t *testing.T, socket string, handler http.Handler) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
}

// env is an environment that names the terminal's socket.
func (term *terminalFake) env(name string) string {
	if name == "ZWRM_SOCKET" {
		return term.socket
	}
	return ""
}

// play runs the commands of a script and returns it with what they answer now.
func (term *terminalFake) play(t *testing.T, script string) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"), line == "":
			fmt.Fprintln(&out, line)
		case strings.HasPrefix(line, "@ "):
			fmt.Fprintln(&out, line)
			term.happen(t, words(t, line[2:]))
		case strings.HasPrefix(line, "$ zwrm"):
			fmt.Fprintln(&out, line)
			out.WriteString(term.run(t, words(t, line[len("$ zwrm"):])))
		}
	}
	return out.String()
}

// run runs one command and returns what it answers, as scripts show it.
func (term *terminalFake) run(t *testing.T, args []string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := Run(t.Context(), args, &stdout, &stderr, term.env)
	out := stdout.String()
	for line := range strings.Lines(stderr.String()) {
		out += "! " + line
	}
	if status != exitDone {
		out += fmt.Sprintf("? %d\n", status)
	}
	return strings.ReplaceAll(out, term.dir, "$DIR")
}

// happen does something to the host.
func (term *terminalFake) happen(t *testing.T, args []string) {
	t.Helper()
	switch {
	case args[0] == "say" && len(args) == 3:
		term.host.Say(model.Name(args[1]), args[2]+"\n")
	case args[0] == "kill" && len(args) == 3:
		term.host.Kill(model.Name(args[1]), strings.ReplaceAll(args[2], `\n`, "\n"))
	case args[0] == "drift" && len(args) == 4:
		term.host.Drift(wire.Difference{Object: args[1], Wanted: args[2], Found: args[3]})
	case args[0] == "pend" && len(args) == 2:
		term.host.Pend(integer(t, args[1]))
	case args[0] == "fight" && len(args) == 4:
		term.host.Fight(wire.Fight{Object: args[1], Since: apitest.Now(), Mended: 5, By: []wire.Culprit{{PID: integer(t, args[3]), Program: args[2]}}})
	case args[0] == "event" && len(args) >= 4:
		e := event.Event{At: apitest.Now(), Kind: event.Kind(args[1]), Object: args[2], Message: strings.ReplaceAll(args[3], `\n`, "\n")}
		for _, by := range args[4:] {
			name, pid, _ := strings.Cut(by, "/")
			e.By, e.Took = append(e.By, event.Culprit{PID: integer(t, pid), Program: name}), 123456*time.Microsecond
		}
		term.host.Events.Tell(e)
	case args[0] == "ail" && len(args) == 5:
		term.host.Ail(doctor.Finding{Severity: doctor.Severity(args[1]), Subject: args[2], What: strings.ReplaceAll(args[3], `\n`, "\n"), Mend: args[4]})
	case args[0] == "stray" && len(args) == 5:
		term.host.Stray(verdict.Traced{Verdict: verdict.Verdict(args[1]), Rule: args[2], Table: args[3], Chain: args[4]})
	case args[0] == "silence" && len(args) == 1:
		term.host.Silence()
	case args[0] == "fail" && len(args) == 3:
		term.host.Fail(args[1], fmt.Errorf("%s", args[2]))
	default:
		t.Fatalf("nothing like %q happens", args)
	}
}

func integer(t *testing.T, word string) int {
	t.Helper()
	n, err := strconv.Atoi(word)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// words splits a line as a shell does, as far as scripts need it.
func words(t *testing.T, line string) []string {
	t.Helper()
	out := []string{}
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		var word string
		if rest, ok := strings.CutPrefix(line, `"`); ok {
			if word, line, ok = strings.Cut(rest, `"`); !ok {
				t.Fatalf("quote without an end: %s", rest)
			}
		} else {
			word, line, _ = strings.Cut(line, " ")
		}
		out = append(out, word)
	}
	return out
}

// TestFollow: what a guest says is shown as it is said, and interrupting is a
// clean end.
func TestFollow(t *testing.T) {
	term := newTerminal(t)
	for _, args := range []string{"image add debian --kernel k", "deploy web --image debian"} {
		if out := term.run(t, strings.Fields(args)); !strings.HasPrefix(out, "debian: ") && !strings.HasPrefix(out, "web: ") {
			t.Fatal(out)
		}
	}
	ctx, interrupt := context.WithCancel(t.Context())
	stdout := lines(make(chan string, 8))
	status := make(chan int)
	go func() {
		status <- Run(ctx, []string{"logs", "web-0", "-f"}, stdout, &bytes.Buffer{}, term.env)
	}()
	for _, line := range []string{"hello\n", "world\n"} {
		term.host.Say("web-0", strings.TrimSuffix(line, "\n")+"\n")
		if got := <-stdout; got != line {
			t.Errorf("got %q, want %q", got, line)
		}
	}
	interrupt()
	if got := <-status; got != exitDone {
		t.Errorf("exit status %d", got)
	}
}

// TestFollowEvents: what was is shown, and then what comes, as it comes.
func TestFollowEvents(t *testing.T) {
	term := newTerminal(t)
	term.host.Events.Tell(event.Event{At: apitest.Now(), Kind: event.VM, Object: "web-0", Message: "running"})
	ctx, interrupt := context.WithCancel(t.Context())
	stdout := lines(make(chan string, 8))
	status := make(chan int)
	go func() {
		status <- Run(ctx, []string{"events", "-f"}, stdout, &bytes.Buffer{}, term.env)
	}()
	if got := <-stdout; got != "2026-07-01T12:00:00Z  vm      web-0: running\n" {
		t.Errorf("got %q", got)
	}
	term.host.Events.Tell(event.Event{At: apitest.Now(), Kind: event.VM, Object: "web-0", Message: "gone"})
	if got := <-stdout; got != "2026-07-01T12:00:00Z  vm      web-0: gone\n" {
		t.Errorf("got %q", got)
	}
	interrupt()
	if got := <-status; got != exitDone {
		t.Errorf("exit status %d", got)
	}
}

// lines passes on what is written.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// TestInterrupted: a command that is interrupted says so.
func TestInterrupted(t *testing.T) {
	term := newTerminal(t)
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	var stdout, stderr bytes.Buffer
	status := Run(ctx, []string{"destroy", "web"}, &stdout, &stderr, term.env)
	if status != exitFailed || !strings.HasPrefix(stderr.String(), "zwrm: interrupted") {
		t.Errorf("got %d %q", status, stderr.String())
	}
}

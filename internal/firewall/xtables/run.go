package xtables

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Runner starts a program and waits for its end.
type Runner interface {
	Run(ctx context.Context, stdin string, name string, args ...string) (stdout string, err error)
}

// Processes runs real programs and knows the last of them. Its zero value is ready
// for use.
type Processes struct {
	mu   sync.Mutex
	pids [64]int // a ring
	next int
}

var _ Runner = &Processes{}

// Ran reports whether one of the last programs had this process id.
func (p *Processes) Ran(pid int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return pid != 0 && slices.Contains(p.pids[:], pid)
}

func (p *Processes) note(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pids[p.next] = pid
	p.next = (p.next + 1) % len(p.pids)
}

// Run returns what the program wrote. When it fails, the error holds what it
// complained of, and the line of its input that it named.
func (p *Processes) Run(ctx context.Context, stdin string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "LC_ALL=C") // messages that we read, not in the user's language
	// Of its own process group: Ctrl-C at a terminal stops zwrmd in its order and
	// does not cut a change off.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Start()
	if err == nil {
		p.note(cmd.Process.Pid)
		err = cmd.Wait()
	}
	if err == nil {
		return stdout.String(), nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return stdout.String(), fmt.Errorf("run %q: %w%s", name, err, complaint(stderr.String(), stdin))
}

// complaint returns what to add to the error of a program: its messages on one
// line, and the line of the input that they are about. The tools name it as
// "line 7 failed" or "Error occurred at line: 7".
func complaint(stderr, stdin string) string {
	var messages []string
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "Try `") && !strings.HasPrefix(line, "# Warning: ") {
			messages = append(messages, line)
		}
	}
	if len(messages) == 0 {
		return ""
	}
	text := ": " + strings.Join(messages, " ")
	named := regexp.MustCompile(`line:? (\d+)`).FindStringSubmatch(text)
	if named == nil {
		return text
	}
	lines := strings.Split(stdin, "\n")
	if n, err := strconv.Atoi(named[1]); err == nil && n >= 1 && n <= len(lines) {
		text += fmt.Sprintf("; that line is %q", lines[n-1])
	}
	return text
}

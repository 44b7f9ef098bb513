package restart_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"zwrm/internal/host/nstest"
	"zwrm/test/zwrmtest"
)

// within bounds whatever a test waits for.
const within = time.Minute

// eventually waits until f has no objection any more.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Since(start) > within {
			t.Fatalf("%s: still after %s: %v", what, within, err)
		}
	}
}

// watch is what is told of writes: to the kernel's links, addresses, routes and
// rules, and to a database.
type watch struct {
	ns       *nstest.Namespace
	database string
	hash     string
	programs []*zwrmtest.Running
	marks    int
}

// newWatch begins to listen. From here on every write to the kernel is told.
func newWatch(t *testing.T, d *zwrmtest.Daemon) *watch {
	t.Helper()
	w := &watch{ns: d.Host.Namespace, database: d.Database, hash: hash(t, d.Database), programs: []*zwrmtest.Running{
		zwrmtest.Begin(t, d.Host.Namespace, "ip", "-o", "monitor", "link", "address", "route"),
		zwrmtest.Begin(t, d.Host.Namespace, "nft", "monitor"),
	}}
	w.told(t) // the programs listen now
	return w
}

// told makes a mark that all programs tell of, and returns what they told before it
// and behind the mark before that.
func (w *watch) told(t *testing.T) []string {
	t.Helper()
	begin, end := mark(w.marks), mark(w.marks+1)
	w.marks++
	eventually(t, "the kernel tells of a mark", func() error {
		// More than once, since the programs may not listen yet.
		zwrmtest.Run(t, w.ns, "ip", "link", "add", end, "type", "bridge")
		zwrmtest.Run(t, w.ns, "ip", "link", "delete", end)
		zwrmtest.Run(t, w.ns, "nft", "add table "+end+"; delete table "+end)
		for _, program := range w.programs {
			if !strings.Contains(program.Stdout(), end) {
				return errors.New("not told")
			}
		}
		return nil
	})
	var lines []string
	for _, program := range w.programs {
		for line := range strings.Lines(program.Stdout()) {
			switch {
			case strings.Contains(line, end) || strings.HasPrefix(line, "# new generation"): // the end of a change
			case strings.Contains(line, begin):
				lines = nil
			default:
				lines = append(lines, line)
			}
		}
	}
	return lines
}

func mark(n int) string { return fmt.Sprintf("mark%d", n) }

// none reports an error if anything was written but what is let pass.
func (w *watch) none(t *testing.T, when string, pass func(line string) bool) {
	t.Helper()
	for _, line := range w.told(t) {
		if !pass(line) {
			t.Errorf("%s: the kernel tells %s", when, line)
		}
	}
	if now := hash(t, w.database); now != w.hash {
		t.Errorf("%s: the database was written to", when)
	}
}

// hash returns a hash of all that a database consists of.
func hash(t *testing.T, path string) string {
	t.Helper()
	sum := sha256.New()
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(path + suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		fmt.Fprintln(sum, suffix, len(content))
		sum.Write(content)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

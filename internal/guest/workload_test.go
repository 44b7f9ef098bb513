package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWorkload(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		write(t, path, "#!/bin/sh\n")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	runs, plain := file("runs", 0o755), file("plain", 0o644)
	link := filepath.Join(dir, "link")
	if err := os.Symlink("runs", link); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	tests := []struct {
		name     string
		programs []string
		want     string // empty: an error
	}{
		{"first", []string{runs, link}, runs},
		{"not executable", []string{plain, runs}, runs},
		{"missing", []string{missing, link}, link},
		{"folder", []string{dir, runs}, runs},
		{"none", []string{missing, plain}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := workload(test.programs...)
			if got != test.want || (err == nil) != (test.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

// TestSupervise: the exit status is that of the program, and orphans that became
// children of this process are reaped while the program runs. The program itself
// sees to the second: it does not end before its orphan's zombie is gone.
func TestSupervise(t *testing.T) {
	if !ownNamespaces(t) {
		return
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		script string
		want   string
	}{
		{"exit status", "exit 3", "exit status 3"},
		{"signal", "kill -9 $$", "killed by SIGKILL"},
		{"reaps orphans", `orphan=$(sh -c 'sh -c "exit 9" > /dev/null & echo $!')
tries=0
while [ -e /proc/$orphan ]; do
	tries=$((tries + 1))
	[ $tries -lt 500 ] || exit 99
	sleep 0.01
done`, "exit status 0"},
		{"has a path", `[ "$PATH" = /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ]`, "exit status 0"},
		{"leads a session", `[ "$(cut -d ' ' -f 6 /proc/$$/stat)" = $$ ]`, "exit status 0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "program")
			write(t, program, "#!/bin/sh\n"+test.script+"\n")
			if err := os.Chmod(program, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", "")
			if err := os.Unsetenv("PATH"); err != nil {
				t.Fatal(err)
			}
			status, err := Supervise(program)
			if err != nil {
				t.Fatal(err)
			}
			if got := describeStatus(status); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestSuperviseCannotStart(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	write(t, program, "no program")
	_, err := Supervise(program)
	if err == nil || !strings.HasPrefix(err.Error(), `run "`+program+`": `) {
		t.Errorf("got %v", err)
	}
}

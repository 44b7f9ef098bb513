package vmm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// hostile fills a VM's folder with what a VMM could put there that a guest broke
// into, and returns a file and a folder outside that links lead to.
func hostile(t *testing.T, dir string) (outside string) {
	t.Helper()
	outside = t.TempDir()
	join := filepath.Join
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(join(outside, "precious"), []byte("keep"), 0o600))
	must(os.MkdirAll(dir, 0o700))
	must(os.Symlink(outside, join(dir, "link")))
	must(os.Symlink(join(outside, "precious"), join(dir, MessagesLog)))
	must(os.Link(join(outside, "precious"), join(dir, ConsoleLog)))
	must(unix.Mkfifo(join(dir, rotatedLog), 0o600))
	must(os.MkdirAll(join(dir, "qmp.sock", "not", "a", "socket"), 0o700))
	must(os.WriteFile(join(dir, "qmp.sock", "not", "file"), nil, 0o600))
	must(os.Mkdir(join(dir, ".moved-1"), 0o700))
	must(os.WriteFile(join(dir, ".moved-2"), nil, 0o600))
	must(os.Symlink(outside, join(dir, "qmp.sock", "not", "link")))
	return outside
}

func unharmed(t *testing.T, outside string) {
	t.Helper()
	if kept, err := os.ReadFile(filepath.Join(outside, "precious")); err != nil || string(kept) != "keep" {
		t.Errorf("the file outside has %q, %v", kept, err)
	}
	info, err := os.Stat(outside)
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 {
		t.Errorf("the folder outside became %d's", uid)
	}
}

// TestPrepareFolder: whatever the last VMM left, the next one gets its folder with an
// empty console log, and no file outside is touched.
func TestPrepareFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "1")
	outside := hostile(t, dir)
	for range 2 { // the second time, there is nothing to do
		if err := PrepareFolder(dir, testUser(), nil); err != nil {
			t.Fatal(err)
		}
		if got, want := modes(t, dir), ". drwx------ 1879048192\nconsole.log -rw------- 1879048192\n"; got != want {
			t.Errorf("folder has\n%swant\n%s", got, want)
		}
	}
	unharmed(t, outside)
}

// TestPrepareFolderKeepsLogs: the logs of the VM's last start stay, and those of a
// zwrmd whose VMMs were root become the user's.
func TestPrepareFolderKeepsLogs(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{ConsoleLog, rotatedLog, MessagesLog, rotatedLog + ".new", "qmp.sock"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := PrepareFolder(dir, testUser(), nil); err != nil {
		t.Fatal(err)
	}
	if rotated, current := contents(t, dir); rotated != rotatedLog || current != ConsoleLog {
		t.Errorf("logs are %q and %q", rotated, current)
	}
	want := ". drwx------ 1879048192\nconsole.log -rw------- 1879048192\nconsole.log.1 -rw------- 0\n"
	if got := modes(t, dir); !strings.HasSuffix(got, want[strings.Index(want, "\n"):]) {
		t.Errorf("folder has\n%swant\n%s", got, want)
	}
}

// modes lists a folder and what is in it: name, mode and owner.
func modes(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	line := func(name string) {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString(name + " " + info.Mode().String() + " " + uidOf(info) + "\n")
	}
	line(".")
	for _, entry := range entries {
		line(entry.Name())
	}
	return out.String()
}

func uidOf(info os.FileInfo) string { return fmt.Sprint(info.Sys().(*syscall.Stat_t).Uid) }

func TestRemoveFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "1")
	outside := hostile(t, dir)
	for range 2 { // one that is gone is no error
		if err := RemoveFolder(dir); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
	unharmed(t, outside)
}

// TestRemoveDeepFolder removes more folders in each other than there may be
// descriptors, and whose path is longer than any call takes.
func TestRemoveDeepFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "1")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	deepen(t, dir, 1500)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	if err := RemoveFolder(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
}

// deepen makes folders in each other, each with a file and a second folder.
func deepen(t *testing.T, dir string, depth int) {
	t.Helper()
	at, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	for i := 0; i < depth && err == nil; i++ {
		err = errors.Join(unix.Mkdirat(at, "in", 0o700), unix.Mkdirat(at, "beside", 0o700))
		var next int
		if err == nil {
			next, err = unix.Openat(at, "in", unix.O_DIRECTORY|unix.O_RDONLY, 0)
		}
		unix.Close(at)
		at = next
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(at)
}

package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

func TestOpenMakesPrivateFiles(t *testing.T) {
	path := testPath(t)
	s := mustOpen(t, path)
	mustCreate(t, s, testApp("web"))
	modes := map[string]os.FileMode{
		filepath.Dir(path): 0o700 | os.ModeDir,
		path:               0o600,
		path + "-wal":      0o600,
		path + "-shm":      0o600,
		path + ".lock":     0o600,
	}
	for name, want := range modes {
		info, err := os.Stat(name)
		if err != nil {
			t.Error(err)
		} else if info.Mode() != want {
			t.Errorf("%s has mode %s, not %s", name, info.Mode(), want)
		}
	}
}

func TestCloseLeavesOneFile(t *testing.T) {
	path := testPath(t)
	s := mustOpen(t, path)
	mustCreate(t, s, testApp("web"))
	mustClose(t, s)
	mustClose(t, s) // again
	for _, suffix := range []string{"-wal", "-shm"} {
		if _, err := os.Stat(path + suffix); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path+suffix, err)
		}
	}
	if err := s.SetMeta(t.Context(), Subnet, "10.0.0.0/8"); !errors.Is(err, ErrClosed) {
		t.Errorf("write after Close: %v, not ErrClosed", err)
	}
	if _, err := s.State(t.Context()); err == nil {
		t.Error("read after Close: no error")
	}
}

func TestReadersCannotWrite(t *testing.T) {
	s := mustOpen(t, testPath(t))
	if _, err := s.readers.Exec(`DELETE FROM app`); err == nil || !strings.Contains(err.Error(), "readonly") {
		t.Errorf("write by a reader: %v", err)
	}
}

func TestOpenWithOddPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?mode=memory#%41'", "state.db")
	mustCreate(t, mustOpen(t, path), testApp("web"))
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestOpenTwice(t *testing.T) {
	path := testPath(t)
	s := mustOpen(t, path)
	link := filepath.Join(t.TempDir(), "link.db")
	must(t, os.Symlink(path, link))
	for _, name := range []string{path, link} {
		_, err := Open(t.Context(), name, nil)
		var locked *LockedError
		if !errors.As(err, &locked) {
			t.Fatalf("Open(%q) = %v, not a *LockedError", name, err)
		}
		if locked.PID != os.Getpid() || locked.Path != path {
			t.Errorf("locked by pid %d at %q, not %d at %q", locked.PID, locked.Path, os.Getpid(), path)
		}
	}
	mustCreate(t, s, testApp("web")) // the refused ones did no harm
	mustClose(t, s)
	mustOpen(t, link)
}

func TestLockGoesWithItsProcess(t *testing.T) {
	path := testPath(t)
	cmd, out := start(t, "hold", path)
	if !out.Scan() {
		t.Fatal("the other process did not open the database")
	}
	_, err := Open(t.Context(), path, nil)
	want := &LockedError{Path: path, PID: cmd.Process.Pid}
	if err == nil || err.Error() != want.Error() {
		t.Fatalf("Open = %v, not %v", err, want)
	}
	if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("error %q does not name path and pid", err)
	}
	kill(t, cmd, out)
	mustOpen(t, path)
}

func TestLockedErrorWithoutPID(t *testing.T) {
	path := testPath(t)
	s := mustOpen(t, path)
	must(t, s.lock.file.Truncate(0))
	_, err := Open(t.Context(), path, nil)
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != 0 || strings.Contains(err.Error(), "pid") {
		t.Errorf("Open = %v, not a *LockedError without pid", err)
	}
}

func TestWhatWasAcknowledgedSurvivesKill(t *testing.T) {
	path := testPath(t)
	cmd, out := start(t, "storm", path)
	var lines []string
	for len(lines) < 200 && out.Scan() {
		lines = append(lines, out.Text())
	}
	lines = append(lines, kill(t, cmd, out)...)

	s := mustOpen(t, path)
	state := mustState(t, s)
	found := map[string]bool{}
	for _, vm := range state.VMs {
		found[fmt.Sprintf("%d %s %d", vm.App, vm.Name, vm.Slot)] = true
	}
	for _, line := range lines {
		if !found[line] {
			t.Errorf("VM %q was acknowledged and is gone", line)
		}
	}
	if len(state.Apps) != len(state.VMs) {
		t.Errorf("%d apps and %d VMs: a transaction was torn", len(state.Apps), len(state.VMs))
	}
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, path string)
		want    string
	}{
		{"garbage", writes(strings.Repeat("this is a text, and a long one. ", 500)), "it is no database"},
		{"short garbage", writes("hello"), "it is no database"},
		{"directory", func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, "it is no regular file"},
		{"dangling link", func(t *testing.T, path string) { must(t, os.Symlink("nowhere", path)) }, "it is no regular file"},
		{"other program", executes(`CREATE TABLE t (a)`), "it is the database of another program"},
		{"other program's mark", executes(`PRAGMA application_id = 7`), "it is the database of another program"},
		{"newer version", isOfVersion(9), "database is of version 9, this zwrmd knows up to 1: install the newer zwrmd"},
		{"damaged", overwrites(3*4096, 4096), "it is damaged"},
		{"damaged first page", overwrites(100, 3000), "it is damaged"},
		{"cut off", func(t *testing.T, path string) {
			fill(t, path)
			must(t, os.Truncate(path, 6000))
		}, "it is damaged"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := testPath(t)
			must(t, os.Mkdir(filepath.Dir(path), 0o700))
			test.prepare(t, path)
			before, _ := os.ReadFile(path)
			_, err := Open(t.Context(), path, nil)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), strconv.Quote(path)) {
				t.Fatalf("Open = %v, want %q and the path", err, test.want)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
			if _, again := Open(t.Context(), path, nil); again == nil || again.Error() != err.Error() {
				t.Errorf("second Open = %v, first = %v", again, err)
			}
		})
	}
}

// TestOpenRefusesLeavesLog covers a newer zwrmd that was killed: what it had
// committed is in the write-ahead log, which must not be moved either.
func TestOpenRefusesLeavesLog(t *testing.T) {
	path := testPath(t)
	s, err := openWith(t.Context(), path, append(migrations(), `CREATE TABLE later (a ANY) STRICT`), nil)
	must(t, err)
	mustCreate(t, s, testApp("web"))
	copied := filepath.Join(t.TempDir(), "state.db")
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(path + suffix) // the store is quiet, and not used after this
		must(t, err)
		must(t, os.WriteFile(copied+suffix, content, 0o600))
	}
	mustClose(t, s)

	before, _ := os.ReadFile(copied + "-wal")
	if _, err := Open(t.Context(), copied, nil); err == nil || !strings.Contains(err.Error(), "is of version 2") {
		t.Fatalf("Open = %v", err)
	}
	if after, _ := os.ReadFile(copied + "-wal"); len(before) == 0 || !bytes.Equal(before, after) {
		t.Errorf("the log of %d bytes was changed", len(before))
	}
}

func TestOpenWithoutRights(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, path string)
		want    string
	}{
		{"folder not writable", func(t *testing.T, path string) {
			must(t, os.Chmod(filepath.Dir(path), 0o555))
		}, ".lock: permission denied"},
		{"folder not to be made", func(t *testing.T, path string) {
			must(t, os.Remove(filepath.Dir(path)))
			must(t, os.Chmod(filepath.Dir(filepath.Dir(path)), 0o555))
		}, "/zwrm: permission denied"},
		{"file not readable", func(t *testing.T, path string) {
			mustClose(t, mustOpen(t, path))
			must(t, os.Chmod(path, 0))
			must(t, os.Remove(path+".lock"))
		}, "it cannot be read and written"},
		{"file not writable", func(t *testing.T, path string) {
			mustClose(t, mustOpen(t, path))
			must(t, os.Chmod(path, 0o444))
			must(t, os.Remove(path+".lock"))
		}, "it cannot be read and written"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := testPath(t)
			must(t, os.Mkdir(filepath.Dir(path), 0o777))
			must(t, os.Chmod(filepath.Dir(path), 0o777)) // past the umask
			// The folder of all of the test's folders is closed to nobody.
			must(t, os.Chmod(filepath.Dir(filepath.Dir(filepath.Dir(path))), 0o755))
			test.prepare(t, path)
			t.Cleanup(func() { os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755) })
			_, out := start(t, "nobody", path)
			var said []string
			for out.Scan() {
				said = append(said, out.Text())
			}
			text := strings.Join(said, "\n")
			if !strings.Contains(text, test.want) || !strings.Contains(text, path) {
				t.Errorf("Open = %q, want %q and the path", text, test.want)
			}
		})
	}
}

func TestOpenWaitsForNobodyAfterCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := testPath(t)
	if _, err := Open(ctx, path, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("Open = %v, not context.Canceled", err)
	}
	mustOpen(t, path) // the lock was given up
}

// TestOpenAfterBrokenCreation covers a crash between the steps of making a
// database: an empty file, one with its first pages and the journal that takes
// them back, and one that was turned to WAL and has no tables.
func TestOpenAfterBrokenCreation(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, string){
		"empty file":  writes(""),
		"hot journal": crashesMidway,
		"no tables":   executes(`PRAGMA journal_mode = WAL`),
	} {
		t.Run(name, func(t *testing.T) {
			path := testPath(t)
			must(t, os.Mkdir(filepath.Dir(path), 0o700))
			prepare(t, path)
			mustCreate(t, mustOpen(t, path), testApp("web"))
		})
	}
}

func writes(text string) func(*testing.T, string) {
	return func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte(text), 0o600)) }
}

// executes makes a database with the SQL of another program.
func executes(statements string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		db, err := sql.Open("sqlite", path)
		must(t, err)
		_, err = db.Exec(statements)
		must(t, errors.Join(err, db.Close()))
	}
}

// crashesMidway leaves what a crash in a transaction leaves that is on the disk
// in part: one that outgrew the page cache.
func crashesMidway(t *testing.T, path string) {
	whole := filepath.Join(t.TempDir(), "whole.db")
	db, err := sql.Open("sqlite", whole)
	must(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	_, err = db.Exec(`PRAGMA cache_size = 1; BEGIN; CREATE TABLE t (a);
		WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT i FROM n`)
	must(t, err)
	for _, suffix := range []string{"", "-journal"} {
		content, err := os.ReadFile(whole + suffix)
		must(t, err)
		if len(content) == 0 {
			t.Fatalf("%s is empty", whole+suffix)
		}
		must(t, os.WriteFile(path+suffix, content, 0o600))
	}
}

func isOfVersion(version int) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		fill(t, path)
		executes(fmt.Sprintf(`PRAGMA user_version = %d`, version))(t, path)
	}
}

func overwrites(offset, length int) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		fill(t, path)
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		_, err = file.WriteAt(bytes.Repeat([]byte{0xff}, length), int64(offset))
		must(t, errors.Join(err, file.Close()))
	}
}

// fill makes a database of some pages.
func fill(t *testing.T, path string) {
	t.Helper()
	s := mustOpen(t, path)
	app := testApp("web")
	var vms []model.VM
	for i := range 500 {
		vms = append(vms, testVM(app.Name, i, ipam.Slot(i)))
	}
	mustCreate(t, s, app, vms...)
	mustClose(t, s)
}

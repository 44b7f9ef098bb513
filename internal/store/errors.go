package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// ErrNotFound says that there is no app or VM of the name or id asked for.
var ErrNotFound = errors.New("not found")

// ErrClosed says that the Store was closed before the write began.
var ErrClosed = errors.New("database is closed")

// LockedError says that another process has the database.
type LockedError struct {
	Path string // of the database
	PID  int    // of the other zwrmd; 0 when it has not said yet
}

// Error returns the message for the user: which database, and who has it.
func (e *LockedError) Error() string {
	who := "another zwrmd"
	if e.PID != 0 {
		who += fmt.Sprintf(" (pid %d)", e.PID)
	}
	return fmt.Sprintf("open database %q: %s uses it: stop that one first, or give this one another path in [database]", e.Path, who)
}

// Unique is what no two rows may share.
type Unique string

// The values of Unique.
const (
	AppName Unique = "app name"
	VMName  Unique = "VM name"
	VMSlot  Unique = "slot"
)

// ExistsError says that a row of the same name or slot is there already.
type ExistsError struct {
	What Unique
	Name model.Name // the app or VM that is there
	Slot ipam.Slot  // its slot; VMSlot only
}

// Error returns the message for the user: what is taken, and by whom.
func (e *ExistsError) Error() string {
	switch e.What {
	case AppName:
		return fmt.Sprintf("app %q exists already", e.Name)
	case VMName:
		return fmt.Sprintf("VM %q exists already", e.Name)
	default:
		return fmt.Sprintf("slot %d belongs to VM %q already", e.Slot, e.Name)
	}
}

// DiskError says that the disk does not take what is written, and names the kernel's
// reason: ENOSPC, EROFS, or another one of a disk that fails.
type DiskError struct {
	Path  string // of the database
	Cause syscall.Errno
	Err   error // of SQLite, or the Cause
}

// Error returns the message for the user: which disk, and what is wrong with it.
func (e *DiskError) Error() string {
	what := "fails"
	switch e.Cause {
	case syscall.ENOSPC:
		what = "is full"
	case syscall.EROFS:
		what = "is read-only"
	}
	return fmt.Sprintf("disk of database %q %s: %s", e.Path, what, e.Err)
}

// Unwrap returns both errors.
func (e *DiskError) Unwrap() []error { return []error{e.Cause, e.Err} }

// Of fcntl.h and statvfs.h.
const (
	accessWrite   = 2 // W_OK
	mountReadOnly = 1 // ST_RDONLY
)

// writable returns a *DiskError when the database's file cannot be written.
func writable(path string) error {
	err := syscall.Access(path, accessWrite)
	var cause syscall.Errno
	if errors.As(err, &cause) {
		return &DiskError{path, cause, err}
	}
	return err
}

// diagnose makes a *DiskError of an error of SQLite that comes from the disk. SQLite
// itself tells only a full one, and that not always: all else it calls an I/O error,
// or a file that cannot be opened.
func diagnose(path string, err error) error {
	switch code(err) & primary {
	case sqlite3.SQLITE_FULL:
		return &DiskError{path, syscall.ENOSPC, err}
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
	default:
		return err
	}
	var disk syscall.Statfs_t
	if failed := syscall.Statfs(filepath.Dir(path), &disk); failed != nil {
		return errors.Join(err, failed)
	}
	switch {
	case disk.Flags&mountReadOnly != 0:
		return &DiskError{path, syscall.EROFS, err}
	case disk.Bavail == 0:
		return &DiskError{path, syscall.ENOSPC, err}
	case code(err)&primary == sqlite3.SQLITE_IOERR:
		return &DiskError{path, syscall.EIO, err}
	}
	return err
}

// primary masks an extended result code of SQLite: its lower byte is the kind.
const primary = 0xff

// code returns SQLite's extended result code, 0 when err is not of SQLite.
// https://sqlite.org/rescode.html
func code(err error) int {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return sqlite3.SQLITE_OK
	}
	return e.Code()
}

// advise says what SQLite's error means for the file, and what to do.
func advise(err error) error {
	switch code(err) & primary {
	case sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("it is no database (%w): move the file away, or give another path in [database]", err)
	case sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("it is damaged (%w): put a copy from before in its place; the file was not changed", err)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fmt.Errorf("another program holds a lock on it (%w): end that program", err)
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY:
		return fmt.Errorf("it cannot be read and written (%w): run as root, or check who owns the file and its folder", err)
	}
	return err
}

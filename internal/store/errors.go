package store

import (
	"errors"
	"fmt"

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
	const primary = 0xff // the lower byte of an extended result code
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

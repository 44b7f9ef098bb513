package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

const (
	// applicationID marks a database as ours in its header: "ZWRM" in ASCII.
	// https://sqlite.org/pragma.html#pragma_application_id
	applicationID = 0x5a57524d

	// busyTimeout is how many milliseconds to wait for another program, such as
	// an administrator's sqlite3, to give up its lock on the database.
	busyTimeout = "5000"
)

// probe returns the schema version of the database, 0 when it is empty, after it
// made sure that the database is ours, whole, and not of a newer zwrmd. It reads
// only: the rest of a crash in the write-ahead log is read, not moved.
func probe(ctx context.Context, path string, known int) (version int, err error) {
	mode := "ro"
	if _, err := os.Lstat(path + "-journal"); err == nil {
		// Only a crash while an empty file was turned to WAL leaves a rollback
		// journal, and only a writer can roll it back.
		mode = "rw"
	}
	db, err := connect(path, mode, 1)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	var application, objects int
	err = db.QueryRowContext(ctx, `SELECT
		(SELECT user_version FROM pragma_user_version),
		(SELECT application_id FROM pragma_application_id),
		(SELECT count(*) FROM sqlite_schema)`).Scan(&version, &application, &objects)
	if err != nil {
		return 0, advise(err)
	}
	switch empty := application == 0 && version == 0 && objects == 0; {
	case empty:
		return 0, nil
	case application != applicationID:
		return 0, errors.New("it is the database of another program: give another path in [database]")
	case version < 1:
		return 0, fmt.Errorf("it is damaged (its version is %d): put a copy from before in its place; the file was not changed", version)
	case version > known:
		return 0, fmt.Errorf("database is of version %d, this zwrmd knows up to %d: install the newer zwrmd", version, known)
	}
	return version, quickCheck(ctx, db)
}

// quickCheck reads every page of the database and returns what is wrong with it.
func quickCheck(ctx context.Context, db *sql.DB) error {
	var finding string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&finding); err != nil {
		return advise(err)
	}
	if finding != "ok" {
		return fmt.Errorf("it is damaged (%s): put a copy from before in its place; the file was not changed", finding)
	}
	return nil
}

// walSize is how large the write-ahead log gets before SQLite begins it anew: 1000
// pages of 4 KiB with a header of 24 bytes each (https://sqlite.org/pragma.html#pragma_wal_autocheckpoint),
// and some for the transaction that gets there.
const walSize = 1100 * (4096 + 24)

// reserve has the disk set the blocks of the write-ahead log aside, so that VMs can
// be noted and, above all, removed when something else has filled the disk. They are
// written with zeros, which SQLite takes for the end of the log: a commit then changes
// bytes of a file that does not grow, and the disk has less to note for it, half the
// time on ext4. Where that cannot be done SQLite takes what there is. No lock is on
// that file: closing it by hand drops none.
func reserve(path string) error {
	const keepSize = 1 // FALLOC_FL_KEEP_SIZE of linux/falloc.h
	file, err := os.OpenFile(path+"-wal", os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && info.Size() < walSize && syscall.Fallocate(int(file.Fd()), keepSize, 0, walSize) == nil {
		_, err = file.WriteAt(make([]byte, walSize-info.Size()), info.Size())
		err = errors.Join(err, file.Sync())
	}
	return errors.Join(err, file.Close())
}

// checkWriter reads back what was asked of the connection, since SQLite answers
// a setting that it cannot have with silence, and begins a write that writes
// nothing: a file that cannot be written is opened read-only without an error.
func checkWriter(ctx context.Context, db *sql.DB) error {
	wanted := []struct{ pragma, value, hint string }{
		{"journal_mode", "wal", ": put the database on a local file system"},
		{"synchronous", "2", ""}, // FULL
		{"foreign_keys", "1", ""},
		{"busy_timeout", busyTimeout, ""},
	}
	for _, w := range wanted {
		var found string
		if err := db.QueryRowContext(ctx, "PRAGMA "+w.pragma).Scan(&found); err != nil {
			return fmt.Errorf("read pragma %q: %w", w.pragma, err)
		}
		if found != w.value {
			return fmt.Errorf("pragma %q is %q, not %q%s", w.pragma, found, w.value, w.hint)
		}
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM meta WHERE false")
	return errors.Join(err, tx.Rollback())
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"zwrm/internal/effect"
)

// upgrade brings a database from one version to the last in one transaction. A
// database that has content is copied first, beside itself, under the name of
// its version.
//
// The connection is one of its own, with foreign keys off: a step that makes a
// table anew has to drop the old one, rows that point to it and all
// (https://sqlite.org/lang_altertable.html section 7). They are checked at the end.
func upgrade(ctx context.Context, path string, from int, steps []string, hook effect.Hook) (err error) {
	db, err := connect(path, "rw", 1, "_journal_mode=WAL", "_synchronous=FULL", "_foreign_keys=OFF")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	// The first connection sets it.
	if err := effect.Do(hook, opJournal, func() error { return db.PingContext(ctx) }); err != nil {
		return advise(err)
	}
	if from > 0 {
		if err := backUp(ctx, db, fmt.Sprintf("%s.v%d.bak", path, from), hook); err != nil {
			return err
		}
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return advise(err)
	}
	if err := migrate(ctx, tx, from, steps); err != nil {
		return errors.Join(fmt.Errorf("migrate from version %d to %d: %w", from, len(steps), err), tx.Rollback())
	}
	return effect.Do(hook, opMigrate, tx.Commit)
}

func migrate(ctx context.Context, tx *sql.Tx, from int, steps []string) error {
	for i := from; i < len(steps); i++ {
		if _, err := tx.ExecContext(ctx, steps[i]); err != nil {
			return fmt.Errorf("step to version %d: %w", i+1, err)
		}
	}
	var table string
	err := tx.QueryRowContext(ctx, `SELECT "table" FROM pragma_foreign_key_check`).Scan(&table)
	if err == nil {
		return fmt.Errorf("a row of table %q points to a row that is gone", table)
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("check foreign keys: %w", err)
	}
	// Both are in the database's header and part of the transaction.
	header := fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, len(steps))
	if _, err := tx.ExecContext(ctx, header); err != nil {
		return fmt.Errorf("write version: %w", err)
	}
	return nil
}

// backUp writes a copy of the database. The copy gets its name once it is whole
// and on the disk; an older copy of that name is replaced.
func backUp(ctx context.Context, db *sql.DB, path string, hook effect.Hook) error {
	part := path + ".tmp"
	if err := effect.Do(hook, opBackUp, func() error { return copyInto(ctx, db, part) }); err != nil {
		return fmt.Errorf("back up to %q: %w", path, errors.Join(err, os.Remove(part)))
	}
	if err := effect.Do(hook, opRenameBackUp, func() error { return os.Rename(part, path) }); err != nil {
		return fmt.Errorf("back up to %q: %w", path, err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("back up to %q: %w", path, err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("back up to %q: %w", path, err)
	}
	return nil
}

// copyInto writes the database to an empty file and syncs it, which VACUUM INTO
// does not do by itself.
func copyInto(ctx context.Context, db *sql.DB, path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", path)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"modernc.org/sqlite"

	"zwrm/internal/effect"
)

// maxReaders is how many reads run at once. Each has a connection with a page
// cache of its own.
const maxReaders = 4

// Store is an open database. It is safe for concurrent use.
type Store struct {
	path    string
	hook    effect.Hook // of what is written
	lock    *lock
	writer  *writer // used by serve only
	readers *sql.DB
	lookups *statements // of readers, for a row

	requests chan *request // unbuffered: a request is taken when it begins
	closing  chan struct{}
	served   chan struct{} // closed when serve has returned
	close    func() error
}

// Open opens the database, makes it if there is none, and brings it to the
// schema of this zwrmd. The folder is made with mode 0700, the database with
// 0600.
//
// The error is a *LockedError when another zwrmd uses the database. It is also
// an error when the file is not a database, belongs to another program, is
// damaged, or is of a newer zwrmd; then its content is left as it is. The hook, which
// may be nil, is told of what is written.
func Open(ctx context.Context, path string, hook effect.Hook) (*Store, error) {
	return openWith(ctx, path, migrations(), hook)
}

func openWith(ctx context.Context, path string, steps []string, hook effect.Hook) (*Store, error) {
	path, err := locate(path, hook)
	if err != nil {
		return nil, err
	}
	lock, err := acquire(path, hook)
	if err != nil {
		return nil, err
	}
	s, err := openLocked(ctx, path, steps, hook)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database %q: %w", path, diagnose(path, err)), lock.release())
	}
	s.lock = lock
	s.close = sync.OnceValue(s.shut)
	go s.serve()
	return s, nil
}

func openLocked(ctx context.Context, path string, steps []string, hook effect.Hook) (*Store, error) {
	if err := ensureFile(path, hook); err != nil {
		return nil, err
	}
	version, err := probe(ctx, path, len(steps))
	if err != nil {
		return nil, err
	}
	if version < len(steps) {
		if err := upgrade(ctx, path, version, steps, hook); err != nil {
			return nil, err
		}
	}
	s := &Store{path: path, hook: hook, requests: make(chan *request), closing: make(chan struct{}), served: make(chan struct{})}
	if s.writer, err = openWriter(ctx, path); err != nil {
		return nil, err
	}
	if err := reserve(path); err != nil {
		return nil, errors.Join(err, s.writer.close())
	}
	if s.readers, err = connect(path, "ro", maxReaders); err != nil {
		return nil, errors.Join(err, s.writer.close())
	}
	s.lookups = prepare(s.readers)
	return s, nil
}

// Close finishes the write under way, refuses those that wait with ErrClosed,
// moves the write-ahead log into the database, and gives the lock up.
func (s *Store) Close() error { return s.close() }

func (s *Store) shut() error {
	close(s.closing)
	<-s.served
	// SQLite checkpoints when the last connection closes; that must be the
	// writer, since a reader may not write. The explicit checkpoint is there
	// for its error, which closing swallows.
	err := s.readers.Close()
	if failed := effect.Do(s.hook, opCheckpoint, s.checkpoint); failed != nil {
		err = errors.Join(err, fmt.Errorf("checkpoint: %w", failed))
	}
	err = errors.Join(err, s.writer.close(), s.lock.release())
	if err != nil {
		return fmt.Errorf("close database %q: %w", s.path, err)
	}
	return nil
}

func (s *Store) checkpoint() error {
	_, err := s.writer.conn.ExecContext(context.Background(), "PRAGMA wal_checkpoint(TRUNCATE)")
	return err
}

// locate makes the database's folder and returns the path without symbolic
// links, so that two names of one database have one lock file.
func locate(path string, hook effect.Hook) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("open database %q: %w", path, err)
	}
	if err := effect.Do(hook, opMakeFolder, func() error { return os.MkdirAll(filepath.Dir(abs), 0o700) }); err != nil {
		return "", fmt.Errorf("create folder of database %q: %w", path, err)
	}
	real, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, fs.ErrNotExist) {
		dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
		if err != nil {
			return "", fmt.Errorf("open database %q: %w", path, err)
		}
		return filepath.Join(dir, filepath.Base(abs)), nil
	}
	if err != nil {
		return "", fmt.Errorf("open database %q: %w", path, err)
	}
	return real, nil
}

// ensureFile makes an empty database, which SQLite itself would make readable
// for everybody. Opening the file by hand is harmless here only: we hold the
// lock, so no connection to it exists in this process.
func ensureFile(path string, hook effect.Hook) error {
	info, err := os.Lstat(path)
	if err == nil {
		if !info.Mode().IsRegular() {
			return fmt.Errorf("it is no regular file but %s", info.Mode())
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return effect.Do(hook, opMakeFile, func() error {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		return file.Close()
	})
}

// connect returns a pool of connections to a database that exists. Options are
// parameters of the driver (modernc.org/sqlite, Driver.Open); mode is SQLite's:
// "ro" or "rw".
func connect(path, mode string, conns int, options ...string) (*sql.DB, error) {
	options = append([]string{
		"mode=" + mode,
		"_busy_timeout=" + busyTimeout, // first, so that the others wait
		"_txlock=immediate",            // a transaction that will write never has to be upgraded
		"_dqs=0",                       // "x" is a name, never a string
		"_error_rc=1",                  // no stale text in errors of opening
	}, options...)
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: strings.Join(options, "&")}
	connector, err := sqlite.NewConnector(dsn.String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
)

// writer is the one connection that writes.
type writer struct {
	db   *sql.DB
	conn *sql.Conn
	*statements
}

func openWriter(ctx context.Context, path string) (*writer, error) {
	db, err := connect(path, "rw", 1, "_journal_mode=WAL", "_synchronous=FULL", "_foreign_keys=ON")
	if err != nil {
		return nil, err
	}
	if err := checkWriter(ctx, db); err != nil {
		return nil, errors.Join(advise(err), db.Close())
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &writer{db, conn, prepare(conn)}, nil
}

func (w *writer) close() error {
	return errors.Join(w.statements.close(), w.conn.Close(), w.db.Close())
}

// statements are run again and again. Each is prepared once: to parse one takes longer
// than to run it.
type statements struct {
	of   preparer
	mu   sync.Mutex
	made map[string]statement
}

// preparer is a *sql.DB or a *sql.Conn.
type preparer interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// statement lives as long as the connections that it is of.
type statement struct{ *sql.Stmt }

func prepare(of preparer) *statements {
	return &statements{of: of, made: map[string]statement{}}
}

func (s *statements) close() error {
	var errs []error
	for _, stmt := range s.made {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(errs...)
}

func (s *statements) statement(query string) (statement, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stmt, ok := s.made[query]; ok {
		return stmt, nil
	}
	stmt, err := s.of.PrepareContext(context.Background(), query)
	if err != nil {
		return statement{}, fmt.Errorf("prepare %q: %w", query, err)
	}
	s.made[query] = statement{stmt}
	return statement{stmt}, nil
}

// QueryContext does not give up a query that has begun: of writes that share a
// transaction SQLite may roll back the others as well then, and to notice the end of
// ctx database/sql and the driver start a goroutine each.
func (s *statements) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	stmt, err := s.statement(query)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(context.WithoutCancel(ctx), args...)
}

// txn is the transaction that writes share.
type txn struct{ *writer }

// exec does not end with a context either.
func (t txn) exec(query string, args ...any) (sql.Result, error) {
	stmt, err := t.statement(query)
	if err != nil {
		return nil, err
	}
	return stmt.ExecContext(context.Background(), args...)
}

// change runs a statement that has to change one row, and returns ErrNotFound when
// it changed none.
func (t txn) change(query string, args ...any) error {
	result, err := t.exec(query, args...)
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// writer is the one connection that writes. Each statement is prepared once: to parse
// one takes as long as to run it.
type writer struct {
	db       *sql.DB
	conn     *sql.Conn
	prepared map[string]statement
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
	return &writer{db, conn, map[string]statement{}}, nil
}

func (w *writer) close() error {
	var errs []error
	for _, stmt := range w.prepared {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(append(errs, w.conn.Close(), w.db.Close())...)
}

// statement returns the statement, prepared. It does not end with the context of one
// of the writes that share a transaction: SQLite may roll back the others as well then.
func (w *writer) statement(query string) (statement, error) {
	if stmt, ok := w.prepared[query]; ok {
		return stmt, nil
	}
	stmt, err := w.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return statement{}, fmt.Errorf("prepare %q: %w", query, err)
	}
	w.prepared[query] = statement{stmt}
	return statement{stmt}, nil
}

// statement lives as long as the connections that it is of.
type statement struct{ *sql.Stmt }

// txn is the transaction that writes share.
type txn struct{ *writer }

func (t txn) exec(query string, args ...any) (sql.Result, error) {
	stmt, err := t.statement(query)
	if err != nil {
		return nil, err
	}
	return stmt.ExecContext(context.Background(), args...)
}

// QueryContext is querier's. It does not end with a context either.
func (t txn) QueryContext(_ context.Context, query string, args ...any) (*sql.Rows, error) {
	stmt, err := t.statement(query)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(context.Background(), args...)
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

package store

import (
	"context"
	"database/sql"
	"fmt"
)

// txn is the transaction that writes share. Its statements do not end with the
// context of one of the writes: SQLite may roll back the others as well then.
type txn struct{ *sql.Tx }

func (t txn) exec(query string, args ...any) (sql.Result, error) {
	return t.ExecContext(context.Background(), query, args...)
}

func (t txn) row(query string, args ...any) *sql.Row {
	return t.QueryRowContext(context.Background(), query, args...)
}

// prepare returns a statement that is run many times. It is closed with the
// transaction.
func (t txn) prepare(query string) (statement, error) {
	stmt, err := t.PrepareContext(context.Background(), query)
	if err != nil {
		return statement{}, fmt.Errorf("prepare %q: %w", query, err)
	}
	return statement{stmt}, nil
}

type statement struct{ *sql.Stmt }

func (s statement) exec(args ...any) (sql.Result, error) {
	return s.ExecContext(context.Background(), args...)
}

// one runs a statement that has to change one row, and returns ErrNotFound when
// it changed none.
func (s statement) one(args ...any) error {
	result, err := s.exec(args...)
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}

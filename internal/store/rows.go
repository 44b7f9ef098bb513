package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
)

// read runs several queries of one connection on one snapshot of the database.
func (s *Store) read(ctx context.Context, run func(*sql.Conn) error) (err error) {
	conn, err := s.readers.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	tx, err := conn.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	if err := run(conn); err != nil {
		_ = tx.Rollback() // an error when ctx has ended
		return err
	}
	return tx.Commit()
}

// querier is a *sql.DB, a *sql.Conn, a *statements or a txn.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

type scanFunc func(dest ...any) error

// list returns the rows of a query.
func list[T any](ctx context.Context, q querier, scan func(scanFunc, *T) error, query string, args ...any) (all []T, err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var row T
		if err := scan(rows.Scan, &row); err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

// one returns the first row of a query, or ErrNotFound.
func one[T any](ctx context.Context, q querier, scan func(scanFunc, *T) error, query string, args ...any) (row T, err error) {
	rows, err := list(ctx, q, scan, query, args...)
	if err != nil {
		return row, err
	}
	if len(rows) == 0 {
		return row, ErrNotFound
	}
	return rows[0], nil
}

// scanValue scans a row of one column.
func scanValue[T any](scan scanFunc, value *T) error { return scan(value) }

// row is a row as the driver has it, until the next one.
type row []driver.Value

// eachRow calls take with each row of a query, past database/sql, which converts values
// by reflection.
func eachRow(ctx context.Context, conn *sql.Conn, query string, take func(row) error) error {
	return conn.Raw(func(raw any) (err error) {
		rows, err := raw.(driver.QueryerContext).QueryContext(ctx, query, nil)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		values := make(row, len(rows.Columns()))
		for ctx.Err() == nil { // the driver looks at it for the first row only
			switch err := rows.Next(values); {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return err
			}
			if err := take(values); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}

// scan is a scanFunc that knows pointers to some plain types.
func (r row) scan(dest ...any) error {
	if len(dest) != len(r) {
		return fmt.Errorf("%d columns, not %d", len(r), len(dest))
	}
	for i, value := range r {
		if !assign(dest[i], value) {
			return fmt.Errorf("column %d is no %T: %v", i, dest[i], value)
		}
	}
	return nil
}

// assign reports whether the value is one of what dest points to.
func assign(dest any, value driver.Value) bool {
	n, number := value.(int64)
	switch dest := dest.(type) {
	case *string:
		text, ok := value.(string)
		*dest = text
		return ok
	case *bool:
		*dest = n == 1
		return number && n>>1 == 0
	case *int64:
		*dest = n
		return number
	case *int:
		*dest = int(n)
		return number && int64(*dest) == n
	case *uint32:
		*dest = uint32(n)
		return number && int64(*dest) == n
	case *uint64:
		*dest = uint64(n)
		return number && n >= 0
	}
	return false
}

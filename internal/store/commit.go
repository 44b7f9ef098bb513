package store

import (
	"context"
	"fmt"

	"zwrm/internal/effect"
)

// maxBatch is how many writes share a transaction at most. It bounds how long
// the first of them waits for the others.
const maxBatch = 128

// request is one write, waiting for its turn.
type request struct {
	run  func(txn) error
	err  error      // of run
	done chan error // receives the outcome once it is on the disk
}

// write runs one write and returns once it is on the disk. Writes that wait at
// the same time share one transaction, and so one fsync; each has a savepoint,
// so that one that fails takes nothing back but itself.
//
// A write whose ctx ends while it waits does not begin. One that has begun is
// finished whatever becomes of ctx, so that the caller always knows how it went.
func (s *Store) write(ctx context.Context, op effect.Op, run func(txn) error) error {
	return effect.Do(s.hook, op, func() error { return s.await(ctx, run) })
}

func (s *Store) await(ctx context.Context, run func(txn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := &request{run: run, done: make(chan error, 1)}
	select {
	case s.requests <- r:
		return <-r.done
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return ErrClosed
	}
}

// serve is the one writer.
func (s *Store) serve() {
	defer close(s.served)
	for {
		select {
		case r := <-s.requests:
			s.commit(r)
		case <-s.closing:
			return
		}
	}
}

// commit runs the request, and those that come to wait meanwhile, in one
// transaction. It does not wait for any to come.
func (s *Store) commit(first *request) {
	batch := []*request{first}
	err := s.transact(func(tx txn) error {
		for {
			if err := batch[len(batch)-1].within(tx); err != nil {
				return err
			}
			if len(batch) == maxBatch {
				return nil
			}
			select {
			case next := <-s.requests:
				batch = append(batch, next)
			default:
				return nil
			}
		}
	})
	for _, r := range batch {
		if r.err == nil {
			r.err = err
		}
		r.done <- diagnose(s.path, r.err)
	}
}

// transact runs a transaction. A disk that was made read-only under our open files
// (emergency remount) takes writes into memory, and ext4 then says of every fsync that
// it is done: so it is asked before, and after, when it may have happened in between.
func (s *Store) transact(run func(txn) error) error {
	if err := writable(s.path); err != nil {
		return err
	}
	tx := txn{s.writer}
	if _, err := tx.exec("BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("write database %q: %w", s.path, err)
	}
	if err := run(tx); err != nil {
		_, _ = tx.exec("ROLLBACK") // an error when SQLite has rolled back by itself
		return fmt.Errorf("write database %q: %w", s.path, err)
	}
	if _, err := tx.exec("COMMIT"); err != nil {
		_, _ = tx.exec("ROLLBACK") // as above
		return fmt.Errorf("write database %q: commit: %w", s.path, err)
	}
	return writable(s.path)
}

// within runs the request in a savepoint of the transaction. The error is that
// of the transaction, which nothing can be committed of then: when the disk
// fails, SQLite rolls back all of it by itself, and the savepoint is gone
// (https://sqlite.org/lang_transaction.html section 3).
func (r *request) within(tx txn) error {
	if _, err := tx.exec("SAVEPOINT request"); err != nil {
		return err
	}
	if r.err = r.run(tx); r.err != nil {
		if _, err := tx.exec("ROLLBACK TO request"); err != nil {
			// As text, since the others must not take it for an answer to them.
			return fmt.Errorf("a write beside it: %s (%w)", r.err.Error(), err)
		}
	}
	_, err := tx.exec("RELEASE request")
	return err
}

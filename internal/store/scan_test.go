package store

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"sync"
	"testing"
	"time"
)

// TestRowScan: a value that is of another kind, or that the destination cannot hold, is
// refused.
func TestRowScan(t *testing.T) {
	for _, c := range []struct {
		dest  any
		value any
		ok    bool
	}{
		{new(string), "web", true}, {new(string), int64(1), false}, {new(string), nil, false},
		{new(bool), int64(0), true}, {new(bool), int64(1), true}, {new(bool), int64(2), false}, {new(bool), int64(-1), false}, {new(bool), "1", false},
		{new(int64), int64(math.MinInt64), true}, {new(int64), "7", false}, {new(int64), 7.0, false},
		{new(int), int64(math.MaxInt64), true}, {new(int), nil, false},
		{new(uint32), int64(math.MaxUint32), true}, {new(uint32), int64(math.MaxUint32 + 1), false}, {new(uint32), int64(-1), false},
		{new(uint64), int64(math.MaxInt64), true}, {new(uint64), int64(-1), false}, {new(uint64), []byte("1"), false},
		{new(time.Time), int64(1), false},
	} {
		if err := (row{c.value}).scan(c.dest); (err == nil) != c.ok {
			t.Errorf("%T from %v: %v", c.dest, c.value, err)
		}
	}
	if err := (row{int64(1)}).scan(new(int64), new(int64)); err == nil {
		t.Error("a row of one column has two")
	}
}

// TestEachRow: all rows come with what they hold, until one is refused or the question
// is given up.
func TestEachRow(t *testing.T) {
	s := mustOpen(t, testPath(t))
	const count = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, 'no. ' || i FROM n`
	each := func(ctx context.Context, query string, take func(i int64, text string) error) error {
		return s.read(ctx, func(conn *sql.Conn) error {
			return eachRow(ctx, conn, query, func(r row) error {
				var i int64
				var text string
				if err := r.scan(&i, &text); err != nil {
					return err
				}
				return take(i, text)
			})
		})
	}
	var sum int64
	last := ""
	err := each(t.Context(), count+" LIMIT 1000", func(i int64, text string) error {
		sum, last = sum+i, text
		return nil
	})
	if err != nil || sum != 500500 || last != "no. 1000" {
		t.Errorf("rows make %d and end with %q, %v", sum, last, err)
	}
	refused := errors.New("refused")
	if err := each(t.Context(), count, func(i int64, _ string) error {
		if i == 7 {
			return refused
		}
		return nil
	}); !errors.Is(err, refused) {
		t.Errorf("a row that is refused: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := each(ctx, count, func(i int64, _ string) error {
		cancel()
		return nil
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("a question that is given up: %v", err)
	}
	if err := each(t.Context(), "SELECT nothing", nil); err == nil {
		t.Error("a query that SQLite refuses has rows")
	}
}

// TestLookups: whoever asks for a row gets it as it is now, those who ask first at the
// same time included, and nothing when the question was given up.
func TestLookups(t *testing.T) {
	s := mustOpen(t, testPath(t))
	app, vms := mustCreate(t, s, testApp("web"), testVM("web", 0, 7))
	for _, scale := range []int{3, 4} {
		app.Spec.Scale = scale
		must(t, s.Retire(t.Context(), app, nil))
		var asking sync.WaitGroup
		for range 4 * maxReaders {
			asking.Go(func() {
				got, err := s.App(t.Context(), app.Name)
				vm, failed := s.VM(t.Context(), vms[0].Name)
				if err != nil || failed != nil || got.Spec.Scale != scale || vm.Slot != 7 {
					t.Errorf("app %+v, %v; VM %+v, %v", got, err, vm, failed)
				}
			})
		}
		asking.Wait()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.App(ctx, app.Name); !errors.Is(err, context.Canceled) {
		t.Errorf("a question that was given up: %v", err)
	}
}

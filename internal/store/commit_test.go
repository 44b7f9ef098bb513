package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// bubble runs a test in which synctest.Wait returns once every write waits for
// its turn. The store's own I/O is real.
func bubble(t *testing.T, run func(t *testing.T, s *Store)) {
	t.Helper()
	path := testPath(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(context.Background(), path, nil)
		must(t, err)
		defer s.Close()
		run(t, s)
	})
}

// occupy makes the writer busy with a write that does nothing. The write ends
// when free is called, and its outcome comes by the channel.
func occupy(ctx context.Context, s *Store) (free func(), outcome chan error) {
	gate, outcome := make(chan struct{}), make(chan error, 1)
	go func() {
		outcome <- s.write(ctx, "test", func(txn) error { <-gate; return nil })
	}()
	synctest.Wait()
	return func() { close(gate) }, outcome
}

func TestWritersShareOneTransaction(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		mustCreate(t, s, testApp("first"), testVM("first", 0, 1000))
		before := transactions(t, s)
		free, _ := occupy(t.Context(), s)
		var wg sync.WaitGroup
		var failed atomic.Int32
		for i := range 64 {
			wg.Go(func() {
				slot := ipam.Slot(i)
				if i%4 == 3 {
					slot = 1000 // taken: the app, inserted before, must go as well
				}
				app := testApp(fmt.Sprintf("app-%d", i))
				_, _, err := s.Create(t.Context(), app, []model.VM{testVM(app.Name, 0, slot)})
				var exists *ExistsError
				switch {
				case i%4 != 3 && err != nil:
					t.Errorf("create %q: %v", app.Name, err)
				case i%4 == 3 && !errors.As(err, &exists):
					t.Errorf("create %q with a taken slot: %v", app.Name, err)
				case err != nil:
					failed.Add(1)
				}
			})
		}
		synctest.Wait()
		free()
		wg.Wait()
		if n := transactions(t, s) - before; n != 1 {
			t.Errorf("64 waiting writes took %d transactions, not 1", n)
		}
		state := mustState(t, s)
		if len(state.Apps) != 49 || len(state.VMs) != 49 || failed.Load() != 16 {
			t.Errorf("%d apps, %d VMs, %d failures; want 49, 49, 16", len(state.Apps), len(state.VMs), failed.Load())
		}
	})
}

func TestWriteThatWaitsMayBeCancelled(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		free, outcome := occupy(t.Context(), s)
		ctx, cancel := context.WithCancel(t.Context())
		waiting := make(chan error, 1)
		go func() { waiting <- s.SetMeta(ctx, Subnet, "10.0.0.0/8") }()
		synctest.Wait()
		cancel()
		if err := <-waiting; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled write: %v", err)
		}
		free()
		must(t, <-outcome)
		for range 20 { // the writer is free as well, so that luck would do for one
			if err := s.SetMeta(ctx, Subnet, "10.0.0.0/8"); !errors.Is(err, context.Canceled) {
				t.Errorf("write with a cancelled context: %v", err)
			}
		}
		if value, err := s.Meta(t.Context(), Subnet); err != nil || value != "" {
			t.Errorf("cancelled write left %q, %v", value, err)
		}
	})
}

func TestWriteThatBeganIsFinished(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		ctx, cancel := context.WithCancel(t.Context())
		gate, outcome := make(chan struct{}), make(chan error, 1)
		go func() {
			outcome <- s.write(ctx, "test", func(tx txn) error {
				<-gate
				return setMeta(tx, Subnet, "10.0.0.0/8")
			})
		}()
		synctest.Wait()
		cancel()
		close(gate)
		must(t, <-outcome)
		if value, err := s.Meta(t.Context(), Subnet); err != nil || value != "10.0.0.0/8" {
			t.Errorf("write that had begun left %q, %v", value, err)
		}
	})
}

func TestCloseFinishesWhatBegan(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		free, outcome := occupy(t.Context(), s)
		waiting, closed := make(chan error, 1), make(chan error, 1)
		go func() { waiting <- s.SetMeta(t.Context(), Subnet, "10.0.0.0/8") }()
		synctest.Wait()
		go func() { closed <- s.Close() }()
		if err := <-waiting; !errors.Is(err, ErrClosed) {
			t.Errorf("write that waited: %v, not ErrClosed", err)
		}
		free()
		must(t, <-outcome)
		must(t, <-closed)
	})
}

// TestLostTransaction covers the errors after which SQLite rolls back everything
// by itself: no write of the batch may be told that it was done.
func TestLostTransaction(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		free, outcome := occupy(t.Context(), s)
		before, lost := make(chan error, 1), make(chan error, 1)
		go func() { before <- s.SetMeta(t.Context(), Subnet, "10.0.0.0/8") }()
		synctest.Wait()
		cause := errors.New("disk is gone")
		go func() {
			lost <- s.write(t.Context(), "test", func(tx txn) error {
				if _, err := tx.exec("ROLLBACK"); err != nil {
					return err
				}
				return cause
			})
		}()
		synctest.Wait()
		free()
		for _, c := range []chan error{outcome, before} {
			if err := <-c; err == nil || errors.Is(err, cause) || !strings.Contains(err.Error(), "disk is gone") {
				t.Errorf("write of a lost transaction: %v", err)
			}
		}
		if err := <-lost; !errors.Is(err, cause) {
			t.Errorf("write that lost it: %v, not %v", err, cause)
		}
		if value, err := s.Meta(t.Context(), Subnet); err != nil || value != "" {
			t.Errorf("lost transaction left %q, %v", value, err)
		}
		must(t, s.SetMeta(t.Context(), Subnet, "10.0.0.0/8"))
	})
}

func TestFullDatabase(t *testing.T) {
	s := mustOpen(t, testPath(t))
	var pages int
	must(t, s.writer.conn.QueryRowContext(t.Context(), `PRAGMA page_count`).Scan(&pages))
	must(t, s.writer.conn.QueryRowContext(t.Context(), fmt.Sprintf(`PRAGMA max_page_count = %d`, pages)).Scan(&pages))
	app := testApp("web")
	var vms []model.VM
	for i := range 1000 {
		vms = append(vms, testVM(app.Name, i, ipam.Slot(i)))
	}
	if _, _, err := s.Create(t.Context(), app, vms); err == nil || !strings.Contains(err.Error(), "full") {
		t.Fatalf("Create = %v", err)
	}
	if state := mustState(t, s); len(state.Apps)+len(state.VMs) != 0 {
		t.Errorf("failed Create left %d apps and %d VMs", len(state.Apps), len(state.VMs))
	}
	must(t, s.writer.conn.QueryRowContext(t.Context(), `PRAGMA max_page_count = 1000000`).Scan(&pages))
	mustCreate(t, s, app, vms...)
}

// TestStateIsOneMoment reads while apps with a VM come and go.
func TestStateIsOneMoment(t *testing.T) {
	s := mustOpen(t, testPath(t))
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	for g := range 2 {
		writers.Go(func() {
			for i := range 60 {
				app := testApp(fmt.Sprintf("app-%d-%d", g, i))
				slot := ipam.Slot(g*10 + i%10)
				app, vms, err := s.Create(t.Context(), app, []model.VM{testVM(app.Name, 0, slot)})
				if err == nil {
					err = s.Remove(t.Context(), ids(vms), []ipam.Rest{{Slot: slot, Until: testTime()}}, app.ID)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range maxReaders + 1 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					checkState(t, s)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
}

func checkState(t *testing.T, s *Store) {
	state, err := s.State(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	apps := map[model.AppID]bool{}
	for _, app := range state.Apps {
		apps[app.ID] = true
	}
	owned := map[ipam.Slot]bool{}
	for _, vm := range state.VMs {
		if !apps[vm.App] {
			t.Errorf("VM %q without its app", vm.Name)
		}
		owned[vm.Slot] = true
	}
	if len(state.Apps) != len(state.VMs) {
		t.Errorf("%d apps with %d VMs", len(state.Apps), len(state.VMs))
	}
	for _, rest := range state.Released {
		if owned[rest.Slot] {
			t.Errorf("slot %d is owned and rests", rest.Slot)
		}
	}
}

// transactions counts the transactions in the write-ahead log, by the frames
// that end one (https://sqlite.org/fileformat2.html section 4.1).
func transactions(t *testing.T, s *Store) int {
	t.Helper()
	log, err := os.ReadFile(s.path + "-wal")
	must(t, err)
	const header, frameHeader = 32, 24
	pageSize := int(binary.BigEndian.Uint32(log[8:]))
	salt := string(log[16:24])
	n := 0
	for frame := header; frame+frameHeader+pageSize <= len(log); frame += frameHeader + pageSize {
		if string(log[frame+8:frame+16]) == salt && binary.BigEndian.Uint32(log[frame+4:]) != 0 {
			n++
		}
	}
	return n
}

package ipam_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"zwrm/internal/ipam"
)

// clock is a time that the test moves.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func newAllocator(capacity int) (*ipam.Allocator, *clock) {
	c := &clock{time.Unix(1000, 0)}
	return ipam.NewAllocator(capacity, 30*time.Second, c.Now), c
}

func take(t *testing.T, a *ipam.Allocator, n int) []ipam.Slot {
	t.Helper()
	slots, err := a.Take(n)
	if err != nil {
		t.Fatal(err)
	}
	return slots
}

func TestTakeIsNextFit(t *testing.T) {
	a, c := newAllocator(8)
	if got, want := take(t, a, 3), []ipam.Slot{0, 1, 2}; !slices.Equal(got, want) {
		t.Fatalf("took %v, want %v", got, want)
	}
	a.Release(ipam.Rest{Slot: 0, Until: a.Until()})
	c.now = c.now.Add(time.Minute)
	if got, want := take(t, a, 2), []ipam.Slot{3, 4}; !slices.Equal(got, want) {
		t.Errorf("took %v, want %v: a freed slot comes last", got, want)
	}
	if got, want := take(t, a, 4), []ipam.Slot{5, 6, 7, 0}; !slices.Equal(got, want) {
		t.Errorf("took %v, want %v: the search goes round", got, want)
	}
}

func TestQuarantine(t *testing.T) {
	a, c := newAllocator(2)
	slots := take(t, a, 2)
	a.Release(ipam.Rest{Slot: slots[1], Until: a.Until()})
	c.now = c.now.Add(10 * time.Second)
	_, err := a.Take(1)
	var exhausted *ipam.ExhaustedError
	if !errors.As(err, &exhausted) {
		t.Fatalf("error %v, want an ExhaustedError", err)
	}
	if want := (ipam.ExhaustedError{Want: 1, Free: 0, Resting: 1, Next: 20 * time.Second}); *exhausted != want {
		t.Errorf("got %+v, want %+v", *exhausted, want)
	}
	c.now = c.now.Add(20 * time.Second)
	if got := take(t, a, 1); got[0] != slots[1] {
		t.Errorf("took %d, want %d", got[0], slots[1])
	}
}

// TestRestAfterClockWasSetBack: what was noted by a clock that ran ahead holds a slot
// no longer than what is freed now.
func TestRestAfterClockWasSetBack(t *testing.T) {
	a, c := newAllocator(1)
	if err := a.Rest(ipam.Rest{Slot: 0, Until: c.now.Add(365 * 24 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if slots, err := a.Take(1); err == nil {
		t.Fatalf("took %v, which rests", slots)
	}
	c.now = c.now.Add(30 * time.Second)
	take(t, a, 1)
}

func TestTakeAllOrNone(t *testing.T) {
	a, _ := newAllocator(5)
	if _, err := a.Take(6); err == nil {
		t.Fatal("took 6 of 5")
	}
	if got := take(t, a, 5); len(got) != 5 {
		t.Errorf("took %v after a refusal", got)
	}
}

func TestReserve(t *testing.T) {
	a, _ := newAllocator(4)
	if err := a.Reserve(2); err != nil {
		t.Fatal(err)
	}
	if err := a.Reserve(2); err == nil {
		t.Error("reserved twice")
	}
	if err := a.Reserve(4); err == nil {
		t.Error("reserved past the end")
	}
	if got, want := take(t, a, 3), []ipam.Slot{3, 0, 1}; !slices.Equal(got, want) {
		t.Errorf("took %v, want %v", got, want)
	}
}

func TestReleaseTwiceCountsOnce(t *testing.T) {
	a, c := newAllocator(70)
	slots := take(t, a, 70)
	a.Return(slots[3], slots[3])
	if used, free, resting := a.Counts(); used != 69 || free != 1 || resting != 0 {
		t.Errorf("counts %d, %d, %d", used, free, resting)
	}
	rest := ipam.Rest{Slot: slots[5], Until: a.Until()}
	a.Release(rest)
	c.now = c.now.Add(time.Minute)
	if used, free, _ := a.Counts(); used != 68 || free != 2 {
		t.Errorf("used %d, free %d", used, free)
	}
}

// TestRandom compares the allocator with a map over many random operations.
func TestRandom(t *testing.T) {
	const capacity = 130
	a, c := newAllocator(capacity)
	random := rand.New(rand.NewPCG(1, 2))
	owned := map[ipam.Slot]bool{}
	resting := map[ipam.Slot]time.Time{}
	for range 20000 {
		switch random.IntN(3) {
		case 0:
			slots, err := a.Take(1 + random.IntN(4))
			if err != nil {
				continue
			}
			for _, s := range slots {
				if until, ok := resting[s]; owned[s] || ok && until.After(c.now) || int(s) >= capacity {
					t.Fatalf("slot %d given twice, too early, or out of range", s)
				}
				owned[s] = true
				delete(resting, s)
			}
		case 1:
			for s := range owned {
				resting[s] = a.Until()
				a.Release(ipam.Rest{Slot: s, Until: resting[s]})
				delete(owned, s)
				break
			}
		case 2:
			c.now = c.now.Add(time.Duration(random.IntN(5)) * time.Second)
		}
		if used, free, rests := a.Counts(); used != len(owned) || used+free+rests != capacity {
			t.Fatalf("counts %d, %d, %d; %d owned", used, free, rests, len(owned))
		}
	}
}

func TestConcurrentTakesDiffer(t *testing.T) {
	a, _ := newAllocator(1000)
	var (
		mu   sync.Mutex
		seen = map[ipam.Slot]bool{}
		work sync.WaitGroup
	)
	for range 50 {
		work.Go(func() {
			slots, err := a.Take(20)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			for _, s := range slots {
				if seen[s] {
					t.Errorf("slot %d given twice", s)
				}
				seen[s] = true
			}
		})
	}
	work.Wait()
}

// TestWarmComesFirst: slots whose network is made ahead are handed out before the
// others, those that rest once they are free, and those that were taken never.
func TestWarmComesFirst(t *testing.T) {
	a, c := newAllocator(8)
	take(t, a, 2)
	if got, want := a.Cold(3), []ipam.Slot{2, 3, 4}; !slices.Equal(got, want) {
		t.Fatalf("cold: %v, want %v", got, want)
	}
	a.Release(ipam.Rest{Slot: 0, Until: a.Until()})
	a.Warm(0, 1, 4, 6, 4, 99)
	if got, want := a.Cold(8), []ipam.Slot{2, 3, 5, 7}; !slices.Equal(got, want) {
		t.Errorf("cold: %v, want %v", got, want)
	}
	if got, want := take(t, a, 3), []ipam.Slot{4, 6, 2}; !slices.Equal(got, want) {
		t.Errorf("took %v, want %v", got, want)
	}
	c.now = c.now.Add(time.Minute)
	if got, want := take(t, a, 4), []ipam.Slot{0, 3, 5, 7}; !slices.Equal(got, want) {
		t.Errorf("took %v, want %v", got, want)
	}
	if _, err := a.Take(1); err == nil {
		t.Error("took a slot that has an owner")
	}
	a.Return(4) // its network is gone
	a.Return(1)
	a.Warm(1)
	if got, want := take(t, a, 2), []ipam.Slot{1, 4}; !slices.Equal(got, want) {
		t.Errorf("took %v, want %v", got, want)
	}
}

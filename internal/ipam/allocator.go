package ipam

import (
	"fmt"
	"math/bits"
	"sync"
	"time"
)

// ExhaustedError says that there are not as many free slots as wanted.
type ExhaustedError struct {
	Want, Free int
	Resting    int           // freed, but still in quarantine
	Next       time.Duration // until the first of those is free again
}

// Error returns the message for the user: how many are free, and when more will be.
func (e *ExhaustedError) Error() string {
	msg := fmt.Sprintf("%d more VMs do not fit: %d of the subnet's blocks are free", e.Want, e.Free)
	if e.Resting > 0 {
		msg += fmt.Sprintf(", %d more in quarantine, the first for %s", e.Resting, e.Next.Round(time.Second))
	}
	return msg
}

// Rest is a freed slot and the moment when its quarantine ends.
type Rest struct {
	Slot  Slot
	Until time.Time
}

// Allocator hands out slots next-fit: the search goes on behind the slot that
// was handed out last, so that a freed slot is reused as late as possible. A
// freed slot also rests for a while, in which packets that are still on their
// way to its last owner die out. Slots whose network is made ahead, which are warm, are
// handed out before others, in the order in which they became free and warm. It is safe
// for concurrent use.
type Allocator struct {
	quarantine time.Duration
	now        func() time.Time

	mu    sync.Mutex
	taken []uint64 // one bit per slot; resting slots count as taken
	size  int
	free  int
	next  Slot
	rests []Rest // ordered by Until
	warm  map[Slot]struct{}
	ready []Slot // warm and free; some may have ceased to be so
}

// NewAllocator returns an Allocator of slots 0 .. capacity-1, all free.
func NewAllocator(capacity int, quarantine time.Duration, now func() time.Time) *Allocator {
	a := &Allocator{
		quarantine: quarantine,
		now:        now,
		taken:      make([]uint64, (capacity+63)/64),
		size:       capacity,
		free:       capacity,
		warm:       map[Slot]struct{}{},
	}
	if tail := capacity % 64; tail != 0 {
		a.taken[len(a.taken)-1] = ^uint64(0) << tail // slots past the end are never free
	}
	return a
}

// Take hands out n slots, or none and an *ExhaustedError.
func (a *Allocator) Take(n int) ([]Slot, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	a.wake(now)
	if n > a.free {
		err := &ExhaustedError{Want: n, Free: a.free, Resting: len(a.rests)}
		if len(a.rests) > 0 {
			err.Next = a.rests[0].Until.Sub(now)
		}
		return nil, err
	}
	slots := make([]Slot, n)
	for i := range slots {
		var ok bool
		if slots[i], ok = a.takeReady(); !ok {
			slots[i] = a.takeNext()
		}
	}
	return slots, nil
}

// Warm notes that the network of slots is made ahead of their VMs. Each is warm until it
// is handed out.
func (a *Allocator) Warm(slots ...Slot) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range slots {
		if int(s) >= a.size {
			continue
		}
		if _, ok := a.warm[s]; ok {
			continue
		}
		a.warm[s] = struct{}{}
		if !a.isTaken(s) {
			a.ready = append(a.ready, s)
		}
	}
}

// Cold returns up to n slots that are free and not warm: those that would be handed out
// next.
func (a *Allocator) Cold(n int) []Slot {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wake(a.now())
	var slots []Slot
	for i := range a.size {
		s := Slot((int(a.next) + i) % a.size)
		if len(slots) == n {
			break
		}
		if _, ok := a.warm[s]; !ok && !a.isTaken(s) {
			slots = append(slots, s)
		}
	}
	return slots
}

// Reserve takes one certain slot: that of a row read at start.
func (a *Allocator) Reserve(s Slot) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if int(s) >= a.size {
		return fmt.Errorf("slot %d lies outside the subnet, which has %d", s, a.size)
	}
	if a.isTaken(s) {
		return fmt.Errorf("slot %d is taken twice", s)
	}
	a.set(s)
	a.next = s + 1
	return nil
}

// Rest puts a slot that is free, or was just read as freed at start, to rest
// until the given moment, and for no longer than one that is freed now: the
// host's clock may have been set back since.
func (a *Allocator) Rest(r Rest) error {
	if last := a.Until(); r.Until.After(last) {
		r.Until = last
	}
	if err := a.Reserve(r.Slot); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rest(r)
	return nil
}

// Until returns when a slot that is freed now may be used again. The store keeps
// it with the freed slot, so that quarantine survives a restart.
func (a *Allocator) Until() time.Time { return a.now().Add(a.quarantine) }

// Release frees slots into quarantine.
func (a *Allocator) Release(rests ...Rest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range rests {
		if a.isTaken(r.Slot) {
			a.rest(r)
		}
	}
}

// Return frees slots that no packet has seen, so that they need no quarantine.
func (a *Allocator) Return(slots ...Slot) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range slots {
		a.clear(s)
	}
}

// Counts returns how many slots are owned, free now, and in quarantine.
func (a *Allocator) Counts() (used, free, resting int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wake(a.now())
	return a.size - a.free - len(a.rests), a.free, len(a.rests)
}

func (a *Allocator) rest(r Rest) {
	i := len(a.rests)
	for i > 0 && a.rests[i-1].Until.After(r.Until) {
		i--
	}
	a.rests = append(a.rests, Rest{})
	copy(a.rests[i+1:], a.rests[i:])
	a.rests[i] = r
}

// wake frees the slots whose quarantine is over.
func (a *Allocator) wake(now time.Time) {
	n := 0
	for n < len(a.rests) && !a.rests[n].Until.After(now) {
		s := a.rests[n].Slot
		a.clear(s)
		if _, ok := a.warm[s]; ok {
			a.ready = append(a.ready, s)
		}
		n++
	}
	a.rests = a.rests[n:]
}

// takeReady takes the slot that is ready for longest, if there is one.
func (a *Allocator) takeReady() (Slot, bool) {
	for len(a.ready) > 0 {
		s := a.ready[0]
		a.ready = a.ready[1:]
		if _, ok := a.warm[s]; ok && !a.isTaken(s) {
			a.set(s)
			return s, true
		}
	}
	return 0, false
}

// takeNext takes the first free slot at or behind a.next. There is one.
func (a *Allocator) takeNext() Slot {
	if int(a.next) >= a.size {
		a.next = 0
	}
	word := int(a.next / 64)
	unseen := a.taken[word] | (1<<(a.next%64) - 1) // slots before a.next wait for the second round
	for unseen == ^uint64(0) {
		word = (word + 1) % len(a.taken)
		unseen = a.taken[word]
	}
	s := Slot(word*64 + bits.TrailingZeros64(^unseen))
	a.set(s)
	a.next = s + 1
	return s
}

func (a *Allocator) isTaken(s Slot) bool { return a.taken[s/64]&(1<<(s%64)) != 0 }

func (a *Allocator) set(s Slot) {
	a.taken[s/64] |= 1 << (s % 64)
	a.free--
	delete(a.warm, s)
}

func (a *Allocator) clear(s Slot) {
	if a.isTaken(s) {
		a.taken[s/64] &^= 1 << (s % 64)
		a.free++
	}
}

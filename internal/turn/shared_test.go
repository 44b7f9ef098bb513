package turn_test

import (
	"slices"
	"sync"
	"testing"

	"zwrm/internal/turn"
)

// TestShared: wishes of callers who wait are carried out at once, as far as they fit, and
// each caller comes back behind that.
func TestShared(t *testing.T) {
	for _, test := range []struct {
		name string
		size int   // how many fit
		want []int // how many were carried out at once
	}{
		{"all fit", 9, []int{6}},
		{"two fit", 2, []int{2, 2, 2}},
		{"none fits", 1, []int{1, 1, 1, 1, 1, 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var shared turn.Shared[int]
			var sizes []int
			var done [7]bool
			asked := make(chan struct{}, len(done))
			fits := func(others []int) bool {
				asked <- struct{}{}
				return len(others) < test.size
			}
			var callers sync.WaitGroup
			call := func(wish int, carryOut func([]int)) {
				callers.Go(func() {
					shared.Do(wish, fits, carryOut)
					if !done[wish] {
						t.Errorf("the caller of wish %d came back too early", wish)
					}
				})
			}
			begun, hold := make(chan struct{}), make(chan struct{})
			call(0, func(wishes []int) {
				close(begun)
				<-hold
				done[0] = slices.Equal(wishes, []int{0})
			})
			<-begun
			for wish := 1; wish < len(done); wish++ {
				call(wish, func(wishes []int) {
					sizes = append(sizes, len(wishes))
					for _, w := range wishes {
						done[w] = true
					}
				})
			}
			for range 5 { // all but the first of them, who is not asked
				<-asked
			}
			close(hold)
			callers.Wait()
			if !slices.Equal(sizes, test.want) {
				t.Errorf("carried out at once: %v, want %v", sizes, test.want)
			}
		})
	}
}

// TestLock: nothing is carried out while somebody has the turn.
func TestLock(t *testing.T) {
	var shared turn.Shared[int]
	shared.Lock()
	done := make(chan int)
	go shared.Do(1, nil, func(wishes []int) { done <- len(wishes) })
	select {
	case <-done:
		t.Error("carried out although locked")
	default:
	}
	shared.Unlock()
	if n := <-done; n != 1 {
		t.Errorf("%d wishes", n)
	}
}

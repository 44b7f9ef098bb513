package daemon

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// TestReadings: who asks while it is being read shares the next reading, which began
// behind the question, and gives up for itself only.
func TestReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r readings[int]
		count, proceed := 0, make(chan error)
		read := func(context.Context) (int, error) {
			count++
			return count, <-proceed
		}
		answers := make(chan int)
		ask := func(ctx context.Context) {
			n, err := r.get(ctx, read)
			if err != nil {
				n = -1
			}
			answers <- n
		}
		go ask(t.Context())
		synctest.Wait() // the first reading is under way
		ctx, giveUp := context.WithCancel(t.Context())
		go ask(ctx)
		for range 20 {
			go ask(t.Context())
		}
		synctest.Wait()
		giveUp()
		if n := <-answers; n != -1 {
			t.Errorf("the one who gave up got %d", n)
		}
		proceed <- nil
		if n := <-answers; n != 1 {
			t.Errorf("the first got %d", n)
		}
		proceed <- nil
		for range 20 {
			if n := <-answers; n != 2 {
				t.Errorf("one who came later got %d", n)
			}
		}
		go ask(t.Context())
		proceed <- errors.New("tired")
		if n := <-answers; n != -1 || count != 3 {
			t.Errorf("got %d after %d readings", n, count)
		}
	})
}

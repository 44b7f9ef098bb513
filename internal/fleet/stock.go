package fleet

import (
	"context"
	"errors"
	"time"
)

const (
	// lull is how long no network was opened before the stock is filled up: making a
	// network and opening another one are in each other's way in the kernel. While less
	// than half of it is left, a gap between two requests is enough.
	lull = 50 * time.Millisecond
	gap  = 2 * time.Millisecond
	// stockRetry is the time until the next try when the last has failed.
	stockRetry = time.Second
)

// stirStock has the one who keeps the stock look whether there is something to do.
func (f *Fleet) stirStock(opened bool) {
	if opened {
		f.opened.Store(time.Now().UnixNano())
	}
	select {
	case f.stir <- struct{}{}:
	default:
	}
}

// keepStock makes networks ahead of VMs, and cleans up behind those that are gone, until
// ctx ends.
func (f *Fleet) keepStock(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-f.stir:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		wait, err := f.tendStock(ctx)
		if err != nil && ctx.Err() == nil {
			f.Log.Warn("stock of networks not as it should be", "error", err)
			wait = stockRetry
		}
		if wait > 0 {
			timer.Reset(wait)
		}
	}
}

// tendStock cleans what is to be cleaned, and makes networks until the stock is full or
// somebody needs the kernel for theirs. wait is how long until there is more to do; 0: it
// is done.
func (f *Fleet) tendStock(ctx context.Context) (wait time.Duration, err error) {
	wait, err = f.Network.Clean(ctx)
	for ctx.Err() == nil {
		ready, lack := f.Network.Spares()
		f.slots.Warm(ready...)
		slots := f.slots.Cold(1)
		if lack == 0 || len(slots) == 0 {
			break
		}
		rest := gap - time.Since(time.Unix(0, f.opened.Load()))
		if lack <= len(ready) {
			rest += lull - gap
		}
		if rest > 0 {
			return sooner(wait, rest), err
		}
		made, failed := f.Network.Prepare(ctx, slots[0])
		if err = errors.Join(err, failed); err != nil || !made { // a VM has got the slot
			return sooner(wait, lull), err
		}
	}
	return wait, err
}

// sooner returns the shorter of two waits, of which 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 {
		return b
	}
	return min(a, b)
}

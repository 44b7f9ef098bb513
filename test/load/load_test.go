package load_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"zwrm/test/zwrmtest"
)

func TestMain(m *testing.M) { zwrmtest.Main(m) }

const (
	vms     = 5000
	perApp  = 50
	clients = 200
	fewest  = 10 // answers to each kind of request: below that it tests little
	during  = time.Minute
)

// TestLoad: 200 clients ask a zwrmd with 5,000 VMs for a minute, each as fast as it
// gets answers. Every answer is the one that is wanted. When they are gone zwrmd has
// no more goroutines, descriptors and memory than before, and rows and kernel agree.
func TestLoad(t *testing.T) {
	d := zwrmtest.NewHost(t).Start(t, zwrmtest.Settings{"network.bridge.enabled": "true"})
	began := time.Now()
	fill(t, d)
	t.Logf("%d attachments made in %s", vms, time.Since(began).Round(time.Millisecond))
	warmUp(t, d)
	base := measure(t, d)

	ctx, cancel := context.WithTimeout(t.Context(), during)
	defer cancel()
	all := &tally{}
	var work sync.WaitGroup
	for i := range clients {
		work.Go(func() {
			c := newCaller(d.Socket, i)
			defer c.close()
			all.add(c.run(ctx))
			if err := c.tidy(t.Context()); err != nil {
				t.Errorf("after the load: %v", err)
			}
		})
	}
	work.Wait()
	all.report(t)

	noLeak(t, d, base)
	if got := len(d.VMs(t)); got != vms {
		t.Errorf("%d VMs are left, want %d", got, vms)
	}
	d.Must(t, "network", "check")
}

// fill makes the VMs, from several sides at once.
func fill(t *testing.T, d *zwrmtest.Daemon) {
	t.Helper()
	const sides = 16
	var work sync.WaitGroup
	for side := range sides {
		work.Go(func() {
			c := newCaller(d.Socket, side)
			defer c.close()
			for i := side; i < vms; i += sides {
				if err := c.attach(t.Context(), vm(i), app(i)); err != nil {
					t.Errorf("attach %s: %v", vm(i), err)
					return
				}
			}
		})
	}
	work.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

package host_test

import (
	"errors"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"zwrm/internal/effect"
	"zwrm/internal/host"
	"zwrm/internal/ipam"
)

// TestAddressesTogether: TAPs that are made together get their addresses together, since
// the kernel goes through all that there are for each that comes by itself.
func TestAddressesTogether(t *testing.T) {
	var addressed counter
	open(t) // for what it cleans up
	kernel := openHooked(t, &addressed)
	var taps []host.TAP
	for slot := range ipam.Slot(32) {
		taps = append(taps, tap(slot))
	}
	if err := kernel.CreateTAP(t.Context(), taps...); err != nil {
		t.Fatal(err)
	}
	if n := addressed.n.Load(); n != 2 {
		t.Errorf("%d TAPs got their addresses in %d steps, not in 2", len(taps), n)
	}
}

// TestCallersTogether: so do those of callers who wait for their turn, and each caller is
// told of its own TAP only. Two who want the same one both get it.
func TestCallersTogether(t *testing.T) {
	_, others := open(t)
	if err := others.AddLink(host.Link{Name: "zvm3", Kind: host.KindTAP, MTU: 1400, MAC: ipam.MAC{2, 0, 0, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	held, come := make(chan struct{}), make(chan struct{})
	var once sync.Once
	addressed := counter{made: func() { once.Do(func() { close(held); <-come }) }}
	kernel := openHooked(t, &addressed)
	var callers sync.WaitGroup
	errs := make([]error, 11)
	call := func(i int, slot ipam.Slot) {
		callers.Go(func() { errs[i] = kernel.CreateTAP(t.Context(), tap(slot)) })
	}
	call(0, 0)
	<-held
	for i := 1; i < 10; i++ {
		call(i, ipam.Slot(i))
	}
	call(10, 9)
	time.Sleep(100 * time.Millisecond) // in which all of them ask
	close(come)
	callers.Wait()
	for i, err := range errs {
		if foreign := i == 3; foreign != errors.Is(err, host.ErrForeign) || !foreign && err != nil {
			t.Errorf("caller %d: %v", i, err)
		}
	}
	if n := addressed.n.Load(); n > 5 {
		t.Errorf("9 TAPs got their addresses in %d steps", n)
	}
}

// TestRoutesGoFirst: the kernel tells of the routes to the guests of TAPs that are deleted,
// which it does where they went by themselves, not where it had to look for them among all.
func TestRoutesGoFirst(t *testing.T) {
	kernel, _ := open(t)
	taps := []host.TAP{tap(0), tap(1), tap(2)}
	must(t, kernel.CreateTAP(t.Context(), taps...))
	must(t, exec.CommandContext(t.Context(), "ip", "address", "add", "172.16.0.6/30", "dev", "zvm1").Run()) // goes with the first one
	told, err := kernel.Watch(t.Context())
	must(t, err)
	must(t, kernel.DeleteLinks(t.Context(), "zvm0", "zvm1", "zvm2"))
	routes := map[string]bool{}
	await(t, "that the routes of all went", told, func(n host.Notice) bool {
		if n.About == host.AboutRoute && n.Address.Bits() == 30 {
			routes[n.Name] = true
		}
		return len(routes) == len(taps)
	})
	links, err := kernel.LinksNamed(t.Context(), "zvm0", "zvm1", "zvm2")
	must(t, err)
	if len(links) > 0 {
		t.Errorf("still there: %+v", links)
	}
}

func openHooked(t *testing.T, hook effect.Hook) *host.Kernel {
	t.Helper()
	kernel, err := host.Open(hook)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kernel.Close(); err != nil {
			t.Error(err)
		}
	})
	return kernel
}

// counter counts how often addresses are set.
type counter struct {
	n    atomic.Int64
	made func() // called before a TAP is made
}

func (c *counter) Before(op effect.Op) error {
	switch {
	case op == "host.set-address-and-up":
		c.n.Add(1)
	case op == "host.make-tap" && c.made != nil:
		c.made()
	}
	return nil
}

func (*counter) After(effect.Op) {}

package reconcile_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"zwrm/internal/event"
	"zwrm/internal/firewall"
	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// in runs a test in a bubble, on a network of three VMs.
func in(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.rows = []model.VM{vm(1, 0), vm(1, 1), vm(2, 2)}
		w.sync()
		w.Rebuilt() // they were all missing
		test(t, w)
	})
}

// link returns the notice of a link as it is.
func (w *world) link(name string, by int) host.Notice {
	w.t.Helper()
	links, err := w.kernel.LinksNamed(w.t.Context(), name)
	w.must(err)
	if len(links) == 0 {
		return host.Notice{About: host.AboutNoLink, Name: name, PID: by}
	}
	return host.Notice{About: host.AboutLink, Name: name, Link: links[0], PID: by}
}

// mend mends all that is due until nothing waits.
func (w *world) mend() {
	w.t.Helper()
	for range 10 {
		wait, err := w.Mend(w.t.Context())
		w.must(err)
		if wait == 0 {
			return
		}
		time.Sleep(wait)
	}
	w.t.Fatal("there is more to mend without end")
}

// told returns the events of a kind as text.
func (w *world) told(kind event.Kind) []string {
	var told []string
	for _, e := range w.events.Recent() {
		if e.Kind == kind {
			told = append(told, e.Object+": "+e.Message)
		}
	}
	return told
}

// TestOwnChangesAreNoNews: what an attach and a detach make the kernel tell has nothing
// read but of the link that is gone, and nothing mended.
func TestOwnChangesAreNoNews(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		fresh := vm(1, 3)
		half := w.link("zvm9", 0)
		w.rows = append(w.rows, fresh)
		w.must(w.open(t.Context(), fresh))
		done := w.link("zvm3", 0)
		half.About, half.Name, half.Link = host.AboutLink, "zvm3", done.Link
		half.Link.Group, half.Link.Up = model.GroupUnassigned, false
		own := host.Notice{About: host.AboutAddress, Name: "zvm3", Address: netip.MustParsePrefix("172.16.0.13/30")}
		reads := 0
		w.kernel.Fail = func(string) error { reads++; return nil }
		if w.Notice(half, own, done) {
			t.Error("an attach is to be looked at")
		}
		w.mend()
		if reads != 0 {
			t.Errorf("%d operations", reads)
		}
		w.must(w.Close(t.Context(), fresh))
		w.must(w.Remove(t.Context(), fresh))
		w.rows = w.rows[:3]
		reads = 0
		w.Notice(w.link("zvm3", 0))
		w.mend()
		if reads > 3 { // of the test's own look, and ours
			t.Errorf("%d operations for a link that is gone", reads)
		}
		if h := w.History(); h.Drift != 0 {
			t.Errorf("mended: %+v", h.Last)
		}
	})
}

// TestMendLooksAtSuspectsOnly: only the link that was changed is read, and the event
// says who did it and how long it took.
func TestMendLooksAtSuspectsOnly(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		before := w.text()
		w.kernel.ChangeLink("zvm1", func(l *host.Link) { l.Up = false })
		if !w.Notice(w.link("zvm1", 0), host.Notice{About: host.AboutAddress, Name: "zvm1", Gone: true, PID: 4711, Program: "ip"}) {
			t.Error("it is nothing to look at")
		}
		w.kernel.Fail = func(op string) error {
			if op == "links" {
				return errors.New("all links are read")
			}
			return nil
		}
		time.Sleep(200 * time.Millisecond)
		w.mend()
		w.kernel.Fail = nil
		if got := w.text(); got != before {
			t.Errorf("mended:\n%s\nbefore:\n%s", got, before)
		}
		var repair []event.Event
		for _, e := range w.events.Recent() {
			if e.Kind == event.Repair {
				repair = append(repair, e)
			}
		}
		if len(repair) != 1 || repair[0].Object != "link zvm1" || repair[0].Took < 200*time.Millisecond ||
			!slices.Equal(repair[0].By, []event.Culprit{{PID: 4711, Program: "ip"}}) {
			t.Errorf("events are %+v", repair)
		}
		if h := w.History(); h.Drift != 1 || h.Repairs["link"] != 1 || h.Took.Count != 1 {
			t.Errorf("history is %+v", h)
		}
	})
}

// TestMendRulesWithoutRows: rules are compared by what is known in memory.
func TestMendRulesWithoutRows(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		before := w.text()
		w.rules.Change(func(rules []firewall.Rule) []firewall.Rule { return rules[1:] })
		w.SuspectRules(event.Culprit{PID: 4711, Program: "nft"})
		w.kernel.Fail = func(op string) error {
			if strings.HasPrefix(op, "forget") {
				return nil
			}
			return errors.New(op + ": rules are no matter of links")
		}
		w.mend()
		w.kernel.Fail = nil
		if got := w.text(); got != before {
			t.Errorf("mended:\n%s\nbefore:\n%s", got, before)
		}
		if told := w.told(event.Repair); len(told) == 0 {
			t.Error("no event")
		}
	})
}

// TestRenamed: a TAP gets its name back, with whoever has it open; in another group it
// is closed first.
func TestRenamed(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		before := w.text()
		start := len(w.kernel.Journal())
		w.must(w.kernel.Rename(t.Context(), "zvm1", "away"))
		w.kernel.ChangeLink("away", func(l *host.Link) { l.Group = 0x5a000002 })
		w.Notice(host.Notice{About: host.AboutNoLink, Name: "zvm1"}, w.link("away", 0))
		w.mend()
		if got := w.text(); got != before {
			t.Errorf("mended:\n%s\nbefore:\n%s", got, before)
		}
		want := []string{"rename zvm1 to away", "group away 0x5a000000", "rename away to zvm1", "group zvm1 0x5a000001"}
		if got := w.kernel.Journal()[start:]; !slices.Equal(got, want) {
			t.Errorf("operations %q, want %q", got, want)
		}
		if got := w.Rebuilt(); len(got) != 0 {
			t.Errorf("made anew: %v", got)
		}
	})
}

// TestLost: when the kernel had no room to tell, everything is compared.
func TestLost(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.kernel.RemoveLink("zvm1")
		if !w.Notice(host.Notice{About: host.AboutLost}) {
			t.Error("it is nothing to look at")
		}
		w.mend()
		if got := w.Rebuilt(); !slices.Equal(got, []ipam.Slot{1}) {
			t.Errorf("made anew: %v", got)
		}
	})
}

// TestPoll: settings that the kernel has no notice of are found.
func TestPoll(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		if look, err := w.Poll(t.Context()); err != nil || look {
			t.Errorf("in sync: %v, %v", look, err)
		}
		before := w.text()
		for _, name := range []string{"net/ipv4/conf/zvm1/route_localnet", "net/ipv4/ip_forward"} {
			w.must(w.kernel.SetSysctl(name, map[bool]string{true: "1", false: "0"}[strings.HasSuffix(name, "localnet")]))
			if look, err := w.Poll(t.Context()); err != nil || !look {
				t.Errorf("%s: %v, %v", name, look, err)
			}
			w.mend()
			if got := w.text(); got != before {
				t.Errorf("mended:\n%s\nbefore:\n%s", got, before)
			}
		}
	})
}

// TestUplinkMTU: TAPs follow the external interface, and it is told; as is that it is
// gone, and back.
func TestUplinkMTU(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.must(w.kernel.AddLink(host.Link{Name: "eth0", Up: true, MTU: 1500}))
		w.must(w.kernel.SetSysctl("net/ipv4/ip_forward", "0"))
		w.must(w.kernel.SetSysctl("net/ipv4/ip_forward", "1")) // of the new link, too
		w.Notice(w.link("eth0", 0))
		w.mend()
		w.kernel.ChangeLink("eth0", func(l *host.Link) { l.MTU = 1400 })
		w.Notice(w.link("eth0", 0))
		w.mend()
		for _, name := range []string{"zvm0", "zvm1", "zvm2"} {
			if got := w.link(name, 0).Link.MTU; got != 1400 {
				t.Errorf("%s has MTU %d", name, got)
			}
		}
		if w.MTU() != 1400 {
			t.Errorf("MTU is %d", w.MTU())
		}
		w.kernel.RemoveLink("eth0")
		w.Notice(w.link("eth0", 0))
		w.mend()
		told := strings.Join(w.told(event.Uplink), "\n")
		for _, word := range []string{"eth0: gone", "eth0: up", "eth0: mtu 1400, was 1500"} {
			if !strings.Contains(told, word) {
				t.Errorf("%q is not told: %s", word, told)
			}
		}
	})
}

// TestFight: what is changed again and again is mended more and more seldom, up to a
// bound; that is told once, and once more when it is over.
func TestFight(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		var pauses []time.Duration
		last := time.Now()
		for range 20 {
			w.kernel.ChangeLink("zvm1", func(l *host.Link) { l.Up = false })
			w.Notice(w.link("zvm1", 4711))
			drift := w.History().Drift
			for w.History().Drift == drift {
				wait, err := w.Mend(t.Context())
				w.must(err)
				time.Sleep(wait)
			}
			pauses = append(pauses, time.Since(last))
			last = time.Now()
		}
		if pauses[3] > 100*time.Millisecond {
			t.Errorf("it waits before it is a fight: %v", pauses)
		}
		if longest := slices.Max(pauses); longest != pauses[19] || longest < 5*time.Second || longest > 5100*time.Millisecond {
			t.Errorf("pauses are %v", pauses)
		}
		if h := w.History(); len(h.Fights) != 1 || h.Fights[0].Object != "link zvm1" || h.Fights[0].Mended != 20 || h.Fights[0].By[0].PID != 4711 || h.Fought != 1 {
			t.Errorf("history is %+v", h)
		}
		// Another link is mended at once.
		w.kernel.ChangeLink("zvm2", func(l *host.Link) { l.Up = false })
		w.Notice(w.link("zvm2", 0))
		start := time.Now()
		w.mend()
		if took := time.Since(start); took > 100*time.Millisecond || !w.link("zvm2", 0).Link.Up {
			t.Errorf("another link is mended after %s", took)
		}
		time.Sleep(time.Minute)
		w.mend()
		if told := w.told(event.Fight); len(told) != 2 || !strings.Contains(told[0], "link zvm1: begins") || !strings.Contains(told[1], "link zvm1: over") {
			t.Errorf("told: %q", told)
		}
		if h := w.History(); len(h.Fights) != 0 || h.Fought != 1 {
			t.Errorf("history is %+v", h)
		}
	})
}

// TestFailedMendIsTriedAgain: not at once, and not for ever as often.
func TestFailedMendIsTriedAgain(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.kernel.ChangeLink("zvm1", func(l *host.Link) { l.Up = false })
		w.Notice(w.link("zvm1", 0))
		broken := errors.New("broken on purpose")
		w.kernel.Fail = func(op string) error {
			if op == "create zvm1" {
				return broken
			}
			return nil
		}
		time.Sleep(time.Second)
		var waits []time.Duration
		for range 8 {
			wait, err := w.Mend(t.Context())
			if !errors.Is(err, broken) {
				t.Fatalf("error %v", err)
			}
			waits = append(waits, wait)
			time.Sleep(wait)
		}
		if waits[0] != time.Second || waits[1] != 2*time.Second || waits[7] != 30*time.Second {
			t.Errorf("waits are %v", waits)
		}
		w.kernel.Fail = nil
		w.mend()
		if !w.link("zvm1", 0).Link.Up {
			t.Error("it is not mended")
		}
	})
}

// TestCulprits: all who were at it are named, each once, and no more than a few.
func TestCulprits(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.rules.Change(func(rules []firewall.Rule) []firewall.Rule { return rules[1:] })
		for _, by := range []event.Culprit{{}, {Program: "firewalld"}, {PID: 7, Program: "nft"}, {PID: 7, Program: "nft"}} {
			w.SuspectRules(by)
		}
		w.mend()
		for _, e := range w.events.Recent() {
			if e.Kind == event.Repair && !slices.Equal(e.By, []event.Culprit{{Program: "firewalld"}, {PID: 7, Program: "nft"}}) {
				t.Errorf("by %+v", e.By)
			}
		}
		if len(w.told(event.Repair)) == 0 {
			t.Error("no event")
		}
	})
}

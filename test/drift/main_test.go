package drift_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

func TestMain(m *testing.M) { zwrmtest.Main(m) }

// mendWithin bounds how long a test waits for a mending. Everything is compared less
// often than that, so what is mended in time was noticed.
const mendWithin = 20 * time.Second

// dataplanes returns the names of both.
func dataplanes() []string { return []string{"iptables", "nftables"} }

func settings(dataplane string) zwrmtest.Settings {
	return zwrmtest.Settings{"network.bridge.enabled": "true", "network.firewall": `"` + dataplane + `"`}
}

// shell runs commands on the host, one per line, without quotes.
func shell(t testing.TB, h *zwrmtest.Host, commands string) {
	t.Helper()
	for line := range strings.Lines(commands) {
		if words := strings.Fields(line); len(words) > 0 {
			h.Run(t, words[0], words[1:]...)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// events returns what zwrmd has told.
func events(t testing.TB, d *zwrmtest.Daemon) []wire.Event {
	t.Helper()
	all, err := d.Client(t).Events(t.Context())
	must(t, err)
	return all
}

// await waits until something holds.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	timeout := time.After(mendWithin)
	for poll := time.NewTicker(20 * time.Millisecond); !holds(); {
		select {
		case <-poll.C:
		case <-timeout:
			t.Fatalf("%s: not after %s", what, mendWithin)
		}
	}
}

// awaitEvent waits for an event of a kind behind those that are known, whose object and
// message have the words.
func awaitEvent(t testing.TB, d *zwrmtest.Daemon, known int, kind string, words ...string) wire.Event {
	t.Helper()
	var found wire.Event
	timeout := time.Now().Add(mendWithin)
	for {
		all := events(t, d)
		i := slices.IndexFunc(all[min(known, len(all)):], func(e wire.Event) bool {
			text := e.Object + ": " + e.Message
			return e.Kind == kind && !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(text, word) })
		})
		if i >= 0 {
			return all[min(known, len(all))+i]
		}
		if time.Now().After(timeout) {
			t.Fatalf("no event of kind %q says %q; there are %+v", kind, words, all[min(known, len(all)):])
			return found
		}
		time.Sleep(20 * time.Millisecond)
	}
}

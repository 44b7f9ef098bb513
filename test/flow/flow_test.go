package flow_test

import (
	"strings"
	"testing"

	"zwrm/test/zwrmtest"
)

// TestPrivateNetworkingOn tries the table with private networking.
func TestPrivateNetworkingOn(t *testing.T) { t.Parallel(); tryTable(t, true) }

// TestPrivateNetworkingOff tries the table without private networking, as it is by
// default.
func TestPrivateNetworkingOff(t *testing.T) { t.Parallel(); tryTable(t, false) }

func tryTable(t *testing.T, private bool) {
	w := newWorld(t, private, nil)
	t.Run("with rules", func(t *testing.T) {
		w.tryAll(t, func(f flow) bool { return f.inWorld(private) })
	})
	w.removeRules(t)
	t.Run("without rules all pass", func(t *testing.T) {
		for _, f := range flows(t) {
			if f.pass || !f.inWorld(private) {
				continue
			}
			t.Run(f.String(), func(t *testing.T) {
				t.Parallel()
				if _, err := w.try(t, f, answered); err != nil {
					t.Errorf("does not pass even without rules, so that its drop proves nothing: %v", err)
				}
			})
		}
	})
}

// tryAll tries the flows that keep selects, at the same time.
func (w *world) tryAll(t *testing.T, keep func(flow) bool) {
	for _, f := range flows(t) {
		if !keep(f) {
			continue
		}
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			if f.pass {
				w.mustPass(t, f)
			} else {
				w.mustDrop(t, f)
			}
		})
	}
}

func (w *world) mustPass(t *testing.T, f flow) {
	seen, err := w.try(t, f, answered)
	if err != nil {
		t.Fatalf("does not pass: %v", err)
	}
	want := f.seenAs
	if want == "own" {
		want = w.machines[f.from].address.String()
	}
	if want != "-" && f.protocol != "icmp" && seen.String() != want {
		t.Errorf("the target sees %s, want %s", seen, want)
	}
}

func (w *world) mustDrop(t *testing.T, f flow) {
	if _, err := w.try(t, f, dropped); err == nil {
		t.Fatal("passes")
	}
	if what := w.arrived(f); what != "" {
		t.Errorf("is not answered, but reaches its target: %s", what)
	}
}

// TestHostThatDrops: on a host where Docker and ufw have set the policies to DROP
// and forbid in their own chains, all that must pass does, since our chains come
// first; and what must not does not.
func TestHostThatDrops(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true, func(h *zwrmtest.Host) {
		h.Foreign(t)
		for _, command := range []string{
			"-P FORWARD DROP", "-P INPUT DROP", "-P OUTPUT DROP",
			"-A DOCKER-USER -j DROP", "-I FORWARD 1 -j DROP",
		} {
			h.Run(t, "iptables", strings.Fields(command)...)
		}
	})
	w.tryAll(t, func(f flow) bool { return f.inWorld(true) && f.ofVMs() })
}

package neighbours_test

import (
	"path/filepath"
	"strings"
	"testing"

	"zwrm/test/zwrmtest"
)

// TestUfwAlone: ufw is as its users know it, so that what the other tests find out is
// not the fixture's doing.
func TestUfwAlone(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	zwrmtest.Serve(t, h.Namespace, "tcp/22", "tcp/23")
	u := startUfw(t, h)
	u.fine(t, "at first")
	first := h.Rules(t)
	for _, line := range []string{":INPUT DROP", ":FORWARD DROP", ":OUTPUT ACCEPT", "-A ufw-before-forward -j ufw-user-forward"} {
		if !strings.Contains(first, line) {
			t.Errorf("%q is not in\n%s", line, first)
		}
	}
	u.reload(t)
	u.fine(t, "reloaded")
	same(t, "reloaded", h.Rules(t), first)
	u.disable(t)
	if !strings.Contains(h.Rules(t), ":INPUT ACCEPT") {
		t.Errorf("disabled: rules are\n%s", h.Rules(t))
	}
	u.enable(t)
	u.fine(t, "enabled")
	same(t, "enabled", h.Rules(t), first)
}

// TestUfwFirst: ufw is active when zwrmd starts, and drops what it does not know.
func TestUfwFirst(t *testing.T) {
	onEachDataplane(t, func(t *testing.T, dataplane string) {
		h := zwrmtest.NewHost(t)
		u := startUfw(t, h, `DEFAULT_OUTPUT_POLICY="DROP"`)
		before := h.Rules(t)
		s := newSite(t, h, dataplane)
		both := func(when string) {
			t.Helper()
			s.fine(t, when)
			u.fine(t, when)
		}
		both("at first")
		standing := handles(t, h)
		u.reload(t)
		both("ufw reloaded")
		if got := handles(t, h); got != standing {
			t.Errorf("what lets VMs pass was made anew, so it was gone for a moment:\n%s, was\n%s", got, standing)
		}
		u.cmd(t, "route", "allow", "in", "on", "one", "out", "on", "two")
		s.fine(t, "rule added")
		u.cmd(t, "route", "delete", "allow", "in", "on", "one", "out", "on", "two")
		both("rule removed")
		u.disable(t)
		s.fine(t, "ufw disabled")
		u.enable(t)
		both("ufw enabled again")
		u.flush(t)
		s.fine(t, "everything flushed")
		u.reload(t)
		both("ufw reloaded after that")
		s.daemon.Stop(t)
		same(t, "zwrmd stopped", h.Rules(t), before)
		left(t, h)
		u.fine(t, "zwrmd stopped")
	})
}

// TestUfwLater: ufw is enabled on a host on which VMs run, and disabled before zwrmd
// stops.
func TestUfwLater(t *testing.T) {
	onEachDataplane(t, func(t *testing.T, dataplane string) {
		h := zwrmtest.NewHost(t)
		s := newSite(t, h, dataplane)
		u := startUfw(t, h)
		s.fine(t, "ufw enabled")
		u.fine(t, "beside VMs")
		u.disable(t)
		s.fine(t, "ufw disabled")
		alone := theirs(t, h)
		s.daemon.Stop(t)
		same(t, "zwrmd stopped", h.Rules(t), alone)
		left(t, h)
	})
}

// TestDockerAndUfw: both are there, as on many a server.
func TestDockerAndUfw(t *testing.T) {
	onEachDataplane(t, func(t *testing.T, dataplane string) {
		h := zwrmtest.NewHost(t)
		u := startUfw(t, h)
		d := startDocker(t, h)
		d.serve(t, "box", published)
		before := h.Rules(t)
		s := newSite(t, h, dataplane)
		all := func(when string) {
			t.Helper()
			s.fine(t, when)
			d.fine(t, when)
			u.fine(t, when)
		}
		all("at first")
		u.reload(t)
		all("ufw reloaded")
		d.restart(t)
		all("Docker restarted")
		s.daemon.Stop(t)
		same(t, "zwrmd stopped", h.Rules(t), before)
		left(t, h)
	})
}

// fine reports an error if ufw does not let in what it should, or lets in something
// else.
func (u *ufw) fine(t testing.TB, when string) {
	t.Helper()
	if err := (way{"", u.host.Outside, zwrmtest.HostAddress + ":22", ""}).try(t, answerWithin); err != nil {
		t.Errorf("%s: ufw keeps an allowed service closed: %v", when, err)
	}
	if (way{"", u.host.Outside, zwrmtest.HostAddress + ":23", ""}).try(t, refusedWithin) == nil {
		t.Errorf("%s: ufw does not keep a service closed", when)
	}
}

// handles returns the rules of the kernel's chains, each with the number that it got when
// it was made. ufw makes its own there once.
func handles(t testing.TB, host *zwrmtest.Host) string {
	t.Helper()
	var out strings.Builder
	for _, chain := range []string{"FORWARD", "INPUT", "OUTPUT"} {
		out.WriteString(host.Run(t, "nft", "-a", "-s", "list", "chain", "ip", "filter", chain))
	}
	return out.String()
}

// flush has ufw flush every chain and delete every one that is not the kernel's,
// whoever made them. It fails while somebody else makes chains.
func (u *ufw) flush(t testing.TB) {
	t.Helper()
	eventually(t, "everything is flushed", func() bool {
		return zwrmtest.Try(t, u.host.Namespace, filepath.Join(u.root, "lib/ufw/ufw-init"),
			"--rootdir", u.root, "--datadir", u.root, "flush-all").Status == 0
	})
}

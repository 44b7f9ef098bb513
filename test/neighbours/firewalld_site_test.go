package neighbours_test

import (
	"strings"
	"testing"

	"zwrm/test/zwrmtest"
)

// TestFirewalldFirst: firewalld runs when zwrmd starts, and rejects what it does not
// know. VMs have their network whatever firewalld does, and so has what it protects.
func TestFirewalldFirst(t *testing.T) {
	onEachDataplane(t, func(t *testing.T, dataplane string) {
		h := zwrmtest.NewHost(t)
		f := startUsedFirewalld(t, h)
		before := f.own(t)
		s := newSite(t, h, dataplane, f.env(t)...)
		both := func(when string) {
			t.Helper()
			s.fine(t, when)
			f.fine(t, when)
		}
		both("at first")
		if found := s.problems(t, "firewalld"); len(found) > 0 {
			t.Errorf("doctor says %v", found)
		}
		f.reload(t)
		both("reloaded")
		f.completeReload(t)
		both("completely reloaded")
		f.kill(t) // its rules stay
		s.fine(t, "killed")
		f.start(t)
		both("started again")
		f.restart(t)
		both("restarted")
		s.daemon.Kill()
		both("zwrmd killed")
		s.daemon.Start(t)
		both("zwrmd started again")
		s.daemon.Stop(t)
		same(t, "zwrmd stopped", f.own(t), before)
		left(t, h)
		f.fine(t, "zwrmd stopped")
	})
}

// TestFirewalldLater: firewalld comes to a host on which VMs run, goes, and comes again.
// The doctor tells of somebody's zone for TAPs, and its mend mends.
func TestFirewalldLater(t *testing.T) {
	onEachDataplane(t, func(t *testing.T, dataplane string) {
		h := zwrmtest.NewHost(t)
		f := startUsedFirewalld(t, h)
		alone := f.own(t)
		f.stop(t)
		s := newSite(t, h, dataplane, f.env(t)...)
		s.fine(t, "without firewalld")
		f.start(t)
		s.fine(t, "started")
		f.fine(t, "beside VMs")
		f.stop(t)
		s.fine(t, "stopped")
		f.start(t)
		s.fine(t, "started again")

		f.cmd(t, "--zone=public", "--change-interface=zvm+")
		found := s.problems(t, "firewalld")
		if len(found) != 1 || found[0].Mend == "" {
			t.Fatalf("with TAPs in another zone doctor says %v", found)
		}
		for command := range strings.Lines(found[0].Mend) {
			words := strings.Fields(command)
			if words[0] != "firewall-cmd" {
				t.Fatalf("the mend %q is no command of firewalld", command)
			}
			f.cmd(t, words[1:]...)
		}
		s.fine(t, "mended")
		if found := s.problems(t, "firewalld"); len(found) > 0 {
			t.Errorf("after the mend doctor says %v", found)
		}

		s.daemon.Stop(t)
		same(t, "zwrmd stopped", f.own(t), alone)
		left(t, h)
	})
}

// startUsedFirewalld starts one that has used its zone trusted: once made, the chains of
// a zone stay.
func startUsedFirewalld(t testing.TB, host *zwrmtest.Host) *firewalld {
	t.Helper()
	f := startFirewalld(t, host)
	f.cmd(t, "--permanent", "--zone=trusted", "--add-interface=lxc0")
	f.reload(t)
	return f
}

// own returns firewalld's rules, and those of iptables.
func (f *firewalld) own(t testing.TB) string {
	t.Helper()
	return f.host.Run(t, "nft", "-s", "list", "table", "inet", "firewalld") + f.host.Rules(t)
}

// fine reports an error if firewalld does not let in what it should, or lets in
// something else. Its zone for all others allows ssh.
func (f *firewalld) fine(t testing.TB, when string) {
	t.Helper()
	mended(t, when+": an allowed service", func() error {
		return way{"", f.host.Outside, zwrmtest.HostAddress + ":22", ""}.try(t, answerWithin)
	})
	if (way{"", f.host.Outside, zwrmtest.HostAddress + ":23", ""}).try(t, refusedWithin) == nil {
		t.Errorf("%s: firewalld does not keep a service closed", when)
	}
}

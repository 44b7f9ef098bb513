package neighbours_test

import (
	"strings"
	"testing"

	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// TestMend: zwrm doctor tells of firewalls that drop and that zwrmd leaves alone, and the
// commands it gives let VMs through and nobody else.
func TestMend(t *testing.T) {
	tests := []struct {
		subject  string // what doctor blames
		commands string
	}{
		{"inet guard", `nft add table inet guard
nft add chain inet guard forward '{ type filter hook forward priority 10; policy drop; }'
nft add chain inet guard input '{ type filter hook input priority 10; policy drop; }'
nft add chain inet guard output '{ type filter hook output priority 10; policy drop; }'
nft add chain inet guard prerouting '{ type filter hook prerouting priority -150; policy drop; }'`},
		{"iptables-legacy", `iptables-legacy -P FORWARD DROP
iptables-legacy -A INPUT -i lo -j ACCEPT
iptables-legacy -A INPUT -j REJECT
iptables-legacy -P OUTPUT DROP`},
	}
	for _, test := range tests {
		t.Run(test.subject, func(t *testing.T) {
			onEachDataplane(t, func(t *testing.T, dataplane string) {
				h := zwrmtest.NewHost(t)
				s := newSite(t, h, dataplane)
				if found := s.problems(t, test.subject); len(found) > 0 {
					t.Errorf("without a reason doctor says %v", found)
				}
				h.Run(t, "sh", "-e", "-c", test.commands)
				for _, w := range s.open() {
					if w.try(t, refusedWithin) == nil {
						t.Errorf("%s in spite of the drop", w.name)
					}
				}
				for _, problem := range s.problems(t, test.subject) {
					h.Run(t, "sh", "-e", "-c", problem.Mend)
				}
				s.fine(t, "mended")
				if found := s.problems(t, test.subject); len(found) > 0 {
					t.Errorf("after the mend doctor says %v", found)
				}
			})
		})
	}
}

// problems returns what doctor finds about a subject.
func (s *site) problems(t testing.TB, subject string) []wire.Finding {
	t.Helper()
	all, err := s.daemon.Client(t).Doctor(t.Context())
	must(t, err)
	var found []wire.Finding
	for _, f := range all {
		if f.Severity == "problem" && strings.Contains(f.Subject, subject) {
			found = append(found, f)
		}
	}
	return found
}

package neighbours_test

import (
	"strings"
	"testing"

	"zwrm/internal/firewall/foreign"
	"zwrm/internal/model"
	"zwrm/test/zwrmtest"
)

// TestMend: firewalls that drop, and that zwrmd leaves alone, are told of, and the
// commands that mend it let VMs through and nobody else.
func TestMend(t *testing.T) {
	firewalls := map[string]string{
		"nftables": `nft add table inet guard
nft add chain inet guard forward '{ type filter hook forward priority 10; policy drop; }'
nft add chain inet guard input '{ type filter hook input priority 10; policy drop; }'
nft add chain inet guard output '{ type filter hook output priority 10; policy drop; }'
nft add chain inet guard prerouting '{ type filter hook prerouting priority -150; policy drop; }'`,
		"iptables-legacy": `iptables-legacy -P FORWARD DROP
iptables-legacy -A INPUT -i lo -j ACCEPT
iptables-legacy -A INPUT -j REJECT
iptables-legacy -P OUTPUT DROP`,
	}
	for name, commands := range firewalls {
		t.Run(name, func(t *testing.T) {
			onEachDataplane(t, func(t *testing.T, dataplane string) {
				h := zwrmtest.NewHost(t)
				s := newSite(t, h, dataplane)
				h.Run(t, "sh", "-e", "-c", commands)
				for _, w := range s.open() {
					if w.try(t, refusedWithin) == nil {
						t.Errorf("%s in spite of the drop", w.name)
					}
				}
				for _, c := range conflicts(t, h) {
					if !strings.Contains(c.Subject, name) {
						t.Errorf("%s is blamed", c.Subject)
					}
					if c.Drops {
						h.Run(t, "sh", "-e", "-c", c.Mend)
					}
				}
				s.fine(t, "mended")
				for _, c := range conflicts(t, h) {
					if c.Drops {
						t.Errorf("left: %+v", c)
					}
				}
			})
		})
	}
}

func conflicts(t *testing.T, host *zwrmtest.Host) []foreign.Conflict {
	t.Helper()
	var all []foreign.Conflict
	host.Do(t, func() {
		want := foreign.Want{External: zwrmtest.Uplink, HostAccess: []model.Service{service}}
		f, err := foreign.Open(t.Context(), want)
		must(t, err)
		survey, err := f.Survey(t.Context())
		must(t, err)
		all = foreign.Conflicts(survey, want)
	})
	return all
}

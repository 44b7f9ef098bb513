package iptables

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"zwrm/internal/firewall"
	"zwrm/internal/model"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// policy is private networking on with the apps db and web, changed.
func policy(change func(*firewall.Policy)) firewall.Ruleset {
	p := firewall.Policy{
		Subnet:     netip.MustParsePrefix("172.16.0.0/16"),
		External:   "eth0",
		Private:    true,
		EgressDeny: []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")},
		Apps:       []firewall.App{app(1, "db"), app(2, "web")},
	}
	if change != nil {
		change(&p)
	}
	return firewall.Build(p)
}

func app(id model.AppID, name model.Name) firewall.App {
	return firewall.App{Name: name, Group: id.Group()}
}

func withApps(apps ...firewall.App) firewall.Ruleset {
	return policy(func(p *firewall.Policy) { p.Apps = apps })
}

// goldenCase is a policy whose chains are written down in testdata.
type goldenCase struct {
	name  string
	rules firewall.Ruleset
}

func goldenCases() []goldenCase {
	return []goldenCase{
		{"private_on_two_apps", policy(nil)},
		{"private_on_no_apps", withApps()},
		{"private_off", policy(func(p *firewall.Policy) { p.Private = false })},
		{"host_access", policy(func(p *firewall.Policy) {
			p.HostAccess = []model.Service{{Protocol: model.UDP, Port: 53}, {Protocol: model.TCP, Port: 8080}}
		})},
		{"egress_deny_several", policy(func(p *firewall.Policy) {
			p.EgressDeny = append(p.EgressDeny, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32"))
		})},
	}
}

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s (go test -update writes it anew):\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func diffText(differences []firewall.Difference) string {
	var b strings.Builder
	for _, d := range differences {
		b.WriteString(d.Object + ": wanted " + d.Wanted + ", found " + d.Found + "\n")
	}
	return b.String()
}

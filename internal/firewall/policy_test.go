package firewall_test

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

func policy(change func(*firewall.Policy)) firewall.Policy {
	p := firewall.Policy{
		Subnet:     netip.MustParsePrefix("172.16.0.0/16"),
		External:   "eth0",
		EgressDeny: []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")},
	}
	change(&p)
	return p
}

func apps() []firewall.App {
	return []firewall.App{{Name: "db", Group: model.AppID(1).Group()}, {Name: "web", Group: model.AppID(2).Group()}}
}

func TestBuild(t *testing.T) {
	tests := []struct {
		name   string // of the golden file
		policy firewall.Policy
	}{
		{"private_off", policy(func(p *firewall.Policy) { p.Apps = apps() })},
		{"private_on_no_apps", policy(func(p *firewall.Policy) { p.Private = true })},
		{"private_on_two_apps", policy(func(p *firewall.Policy) { p.Private, p.Apps = true, apps() })},
		{"host_access", policy(func(p *firewall.Policy) {
			p.HostAccess = []model.Service{{Protocol: model.UDP, Port: 53}, {Protocol: model.TCP, Port: 8080}}
		})},
		{"egress_deny_none", policy(func(p *firewall.Policy) { p.EgressDeny = nil })},
		{"egress_deny_several", policy(func(p *firewall.Policy) {
			p.EgressDeny = append(p.EgressDeny, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32"))
		})},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			compare(t, test.name+".txt", lines(firewall.Build(test.policy).Rules))
		})
	}
}

// TestBuildDoesNotGrowWithVMs is invariant 5 of the design: a rule for each app
// and none for a VM.
func TestBuildDoesNotGrowWithVMs(t *testing.T) {
	count := func(n int) int {
		p := policy(func(p *firewall.Policy) { p.Private = true })
		for id := range n {
			p.Apps = append(p.Apps, firewall.App{Name: "a", Group: model.AppID(id + 1).Group()})
		}
		return len(firewall.Build(p).Rules)
	}
	if got, want := count(1000)-count(0), 1000; got != want {
		t.Errorf("1000 apps make %d rules, want %d", got, want)
	}
}

// TestBuildLeavesPolicyAlone: rules are made from a policy again and again.
func TestBuildLeavesPolicyAlone(t *testing.T) {
	p := policy(func(p *firewall.Policy) { p.Private, p.Apps = true, apps() })
	first := lines(firewall.Build(p).Rules)
	if second := lines(firewall.Build(p).Rules); second != first {
		t.Errorf("the second Build gives\n%s, the first gave\n%s", second, first)
	}
}

// TestAppRule: the rule added for one app is the rule of the full set.
func TestAppRule(t *testing.T) {
	p := policy(func(p *firewall.Policy) { p.Private, p.Apps = true, apps() })
	private := firewall.Build(p).Stage(firewall.Private, firewall.IPv4)
	if len(private) != 3 {
		t.Fatalf("stage private has %d rules, want 3", len(private))
	}
	for i, app := range p.Apps {
		if got := firewall.AppRule(app); got != private[i] {
			t.Errorf("AppRule(%s) = %s, Build has %s", app.Name, got, private[i])
		}
	}
	if last := private[2]; last.Verdict != firewall.Drop || last.App != "" {
		t.Errorf("last rule of stage private is %q, want a drop", last)
	}
}

func TestStage(t *testing.T) {
	rules := firewall.Build(policy(func(*firewall.Policy) {}))
	tests := []struct {
		stage  firewall.Stage
		family firewall.Family
		want   int
	}{
		{firewall.Ingress, firewall.IPv4, 3},
		{firewall.Ingress, firewall.IPv6, 3},
		{firewall.Ingress, firewall.Both, 4},
		{firewall.Guest, firewall.Both, 7},
		{firewall.Private, firewall.IPv4, 0},
		{firewall.Input, firewall.IPv6, 0},
		{firewall.NAT, firewall.IPv4, 1},
	}
	for _, test := range tests {
		t.Run(string(test.stage)+" "+test.family.String(), func(t *testing.T) {
			if got := rules.Stage(test.stage, test.family); len(got) != test.want {
				t.Errorf("got %d rules, want %d:\n%s", len(got), test.want, lines(got))
			}
		})
	}
}

func lines(rules []firewall.Rule) string {
	var b strings.Builder
	for _, r := range rules {
		b.WriteString(r.String() + "\n")
	}
	return b.String()
}

func compare(t *testing.T, file, got string) {
	t.Helper()
	path := filepath.Join("testdata", file)
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

package verdict_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"zwrm/internal/config"
	"zwrm/internal/firewall"
	"zwrm/internal/host"
	"zwrm/internal/host/hosttest"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
	"zwrm/internal/verdict"
)

// place is a host with two apps, VMs that are not as they should be, and a LAN.
type place struct {
	kernel *hosttest.Fake
	cfg    config.Network
	vms    []model.VM
}

func newPlace(t *testing.T, private bool) *place {
	t.Helper()
	text := `[network]
egress_deny = ["169.254.0.0/16", "203.0.113.0/25"]
host_access = ["tcp/8080", "udp/53"]
`
	if private {
		text += "[network.bridge]\nenabled = true\n"
	}
	cfg, err := config.Parse(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &place{kernel: hosttest.NewFake(), cfg: cfg.Network}
	p.link(t, host.Link{Name: "eth0", Up: true, Addresses: prefixes("192.0.2.1/24")})
	p.link(t, host.Link{Name: "lan0", Up: true, Addresses: prefixes("198.51.100.1/24")})
	p.link(t, host.Link{Name: "zvm99", Kind: host.KindTAP, Up: true, Addresses: prefixes("172.16.1.141/30")})
	must(t, p.kernel.AddRoute(host.Route{Dest: netip.MustParsePrefix("0.0.0.0/0"), Device: "eth0"}))
	must(t, p.kernel.SetSysctl("net/ipv4/ip_forward", "1"))
	for i, vm := range []model.VM{
		{App: 1, AppName: "web", Name: "web-0", State: model.Running},
		{App: 1, AppName: "web", Name: "web-1", State: model.Pending},
		{App: 2, AppName: "db", Name: "db-0", State: model.Running},
		{App: 3, AppName: "odd", Name: "failed", State: model.Failed},
		{App: 3, AppName: "odd", Name: "missing", State: model.Running},
		{App: 3, AppName: "odd", Name: "down", State: model.Running},
		{App: 3, AppName: "odd", Name: "closed", State: model.Running},
		{App: 3, AppName: "odd", Name: "gone", State: model.Stopping},
	} {
		vm.ID, vm.Slot = model.VMID(i+1), ipam.Slot(i)
		p.vms = append(p.vms, vm)
		if vm.Name == "missing" || vm.Name == "gone" {
			continue
		}
		link := plan.VM(p.cfg, 1500, vm)
		must(t, p.kernel.CreateTAP(t.Context(), host.TAP{Name: link.Name, MAC: link.MAC, MTU: link.MTU, Address: link.Address}))
		if vm.Name != "closed" {
			must(t, p.kernel.SetGroup(t.Context(), link.Group, link.Name))
		}
		must(t, p.kernel.SetUp(t.Context(), vm.Name != "down", link.Name))
	}
	return p
}

func (p *place) link(t *testing.T, l host.Link) {
	t.Helper()
	must(t, p.kernel.AddLink(l))
}

func (p *place) explain(t *testing.T, source, dest, service string) (verdict.Answer, error) {
	t.Helper()
	q := verdict.Question{Source: source, Dest: dest}
	if service != "" {
		parsed, err := model.ParseService(service)
		must(t, err)
		q.Service = parsed
	}
	policy := plan.ForVMs(p.cfg, plan.Uplink{Name: "eth0", MTU: 1500}, p.vms).Policy
	return verdict.Explain(t.Context(), verdict.World{
		Layout: p.cfg.Layout, External: "eth0", EgressDeny: p.cfg.EgressDeny, VMs: p.vms, Rules: firewall.Build(policy),
	}, p.kernel, q)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// question is one line of the table: "SOURCE DEST [SERVICE]", whether it passes, the
// reason, and the sentence for it. The sentence is left out where it is the same.
type question struct {
	ask    string
	pass   bool
	reason firewall.Reason
	why    string
}

func (q question) check(t *testing.T, p *place) verdict.Answer {
	t.Helper()
	words := append(strings.Fields(q.ask), "")
	got, err := p.explain(t, words[0], words[1], words[2])
	if err != nil {
		t.Fatalf("%s: %v", q.ask, err)
	}
	if (got.Verdict == verdict.Pass) != q.pass || got.Reason != q.reason || q.why != "" && got.Why != q.why {
		t.Errorf("%s: %s, %s: %s\nwant pass %t, %s: %s", q.ask, got.Verdict, got.Reason, got.Why, q.pass, q.reason, q.why)
	}
	if ours := got.Rule != (firewall.Rule{}); ours != (got.Reason != verdict.NoRule && got.Reason != verdict.NoRoute && got.Reason != verdict.NoTAP) ||
		ours && got.Rule.Reason != got.Reason {
		t.Errorf("%s: decided by rule %q for reason %q", q.ask, got.Rule, got.Reason)
	}
	return got
}

func questions() []question {
	return []question{
		{"web-0 web-1", true, firewall.SameApp, "web-0 and web-1 are of app web"},
		{"web-1 172.16.0.2 tcp/80", true, firewall.SameApp, "web-1 and web-0 are of app web"},
		{"web-0 db-0", false, firewall.OtherApp, "web-0 and db-0 are of different apps"},
		{"172.16.0.10 web-1 udp/53", false, firewall.OtherApp, "db-0 and web-1 are of different apps"},

		{"web-0 internet", true, firewall.Internet, "VMs reach the internet by eth0"},
		{"web-0 8.8.8.8 tcp/443", true, firewall.Internet, ""},
		{"web-0 203.0.113.200", true, firewall.Internet, ""},
		{"web-0 169.254.169.254 tcp/80", false, firewall.EgressDenied, "egress_deny lists 169.254.0.0/16"},
		{"web-0 203.0.113.9", false, firewall.EgressDenied, "egress_deny lists 203.0.113.0/25"},
		{"web-0 198.51.100.2", false, firewall.OtherDevice, "VMs leave the host by eth0 only, and the way to 198.51.100.2 is by lan0"},
		{"web-0 172.16.200.2", false, firewall.Unowned, "no VM has 172.16.200.2, which is an address of the VMs' subnet"},
		{"internet web-0 tcp/80", false, firewall.Unpublished, "nothing of web-0 is published: connections with a VM from outside begin in the VM"},
		{"198.51.100.2 172.16.0.2 tcp/80", false, firewall.Unpublished, ""},
		{"172.16.200.2 web-0", false, firewall.Unpublished, ""}, // a machine that has taken the address

		{"web-0 host", true, firewall.Ping, "a VM may ping its gateway"},
		{"web-0 172.16.0.1", true, firewall.Ping, ""},
		{"web-0 host tcp/8080", true, firewall.HostAccess, "host_access lists tcp/8080"},
		{"db-0 host udp/53", true, firewall.HostAccess, "host_access lists udp/53"},
		{"web-0 host tcp/80", false, firewall.HostClosed, "of the host, VMs reach only what host_access lists, and only on their gateway"},
		{"web-0 host tcp/53", false, firewall.HostClosed, ""},
		{"web-0 172.16.0.5", false, firewall.HostClosed, ""},          // the gateway of web-1
		{"web-0 172.16.0.5 tcp/8080", false, firewall.HostClosed, ""}, // the same
		{"web-0 172.16.0.7", false, firewall.HostClosed, ""},          // everybody on web-1's TAP
		{"web-0 192.0.2.1 tcp/8080", false, firewall.HostClosed, ""},
		{"web-0 198.51.100.1", false, firewall.HostClosed, ""},
		{"host web-0 tcp/22", true, firewall.FromHost, "the host reaches its VMs"},
		{"192.0.2.1 web-0", true, firewall.FromHost, ""},

		{"web-0 172.16.0.3", false, firewall.Multicast, "VMs send to single machines only, and 172.16.0.3 is more than one"},
		{"web-0 255.255.255.255 udp/67", false, firewall.Multicast, ""},
		{"web-0 239.1.1.1 udp/1900", false, firewall.Multicast, ""},
		{"172.16.0.3 internet", false, firewall.Spoofed, "the guest behind zvm0 may send from its own address only, not from 172.16.0.3"},

		{"172.16.1.142 internet", false, firewall.StrayTAP, "zvm99 is named like a TAP of ZWRM and is in no group of ours, so it carries nothing"},
		{"host 172.16.1.142", false, firewall.StrayTAP, ""},
		{"internet 172.16.1.142", false, firewall.StrayTAP, "zvm99 is named like a TAP of ZWRM and is in no group of ours, so it carries nothing"},
		{"failed internet", false, firewall.Unassigned, "failed is failed, and its network closed"},
		{"host failed tcp/80", false, firewall.Unassigned, ""},
		{"web-0 failed", false, firewall.Unassigned, "failed is failed, and its network closed"},
		{"closed internet", false, firewall.Unassigned, "zvm6, the TAP of closed, is in no app's group: zwrm network check"},
		{"missing internet", false, verdict.NoTAP, "zvm4, the TAP of missing, is missing"},
		{"host missing", false, verdict.NoTAP, "zvm4, the TAP of missing, is missing"},
		{"internet missing", false, firewall.Unowned, "zvm4, the TAP of missing, is missing"},
		{"web-0 missing", false, firewall.Unowned, "zvm4, the TAP of missing, is missing"},
		{"gone web-0", false, verdict.NoTAP, "zvm7, the TAP of gone, which is stopping, is missing"},
		{"down web-0", false, verdict.NoTAP, "zvm5, the TAP of down, is down"},
		{"host down", false, verdict.NoTAP, ""},

		{"web-0 2001:db8::1 tcp/443", false, firewall.NoIPv6, "IPv6 of VMs is off"},
		{"2001:db8::1 web-0", false, firewall.NoIPv6, ""},
		{"fe80::1%eth0 web-0", false, firewall.NoIPv6, ""},
		{"failed 2001:db8::1", false, firewall.Unassigned, ""},
		{"host 2001:db8::1", true, verdict.NoRule, ""},
		{"internet 2001:db8::1", true, verdict.NoRule, ""},
		{"web-0 ::ffff:8.8.8.8", true, firewall.Internet, ""},

		{"internet host tcp/22", true, verdict.NoRule, "no rule of ZWRM is about it"},
		{"198.51.100.2 internet", true, verdict.NoRule, ""},
		{"host internet", true, verdict.NoRule, ""},
		{"host host", true, verdict.NoRule, ""},
		{"web-0 127.0.0.1 tcp/80", false, verdict.NoRoute,
			"the kernel throws away what goes from 172.16.0.2 to 127.0.0.1: a blackhole route, or an address that cannot be"},
	}
}

func TestExplain(t *testing.T) {
	p := newPlace(t, true)
	for _, q := range questions() {
		q.check(t, p)
	}
}

func TestWithoutPrivateNetworking(t *testing.T) {
	p := newPlace(t, false)
	for _, q := range []question{
		{"web-0 web-1", false, firewall.NoPrivate, "private networking is off, so VMs do not reach each other"},
		{"web-0 db-0", false, firewall.NoPrivate, ""},
		{"web-0 internet", true, firewall.Internet, ""},
	} {
		q.check(t, p)
	}
}

// TestEveryReason: each reason that a rule has is the answer to some question, but for
// those of packets that a question does not make: forged and broken ones, and the later
// ones of a connection.
func TestEveryReason(t *testing.T) {
	answered := map[firewall.Reason]bool{
		firewall.Known: true, firewall.FromVM: true, firewall.Peers: true, firewall.SpoofedMAC: true, firewall.WithOptions: true, firewall.NotTracked: true,
	}
	for private, asked := range map[bool][]question{true: questions(), false: {{"web-0 web-1", false, firewall.NoPrivate, ""}}} {
		p := newPlace(t, private)
		for _, q := range asked {
			answered[q.check(t, p).Reason] = true
		}
	}
	for _, private := range []bool{true, false} {
		cfg := newPlace(t, private).cfg
		for _, rule := range firewall.Build(plan.Base(cfg, plan.Uplink{Name: "eth0"}).Policy).Rules {
			if !answered[rule.Reason] {
				t.Errorf("no question is answered with the reason of rule %q", rule)
			}
		}
	}
}

// TestFlow: the answer says which packet it is about.
func TestFlow(t *testing.T) {
	tests := []struct {
		ask         string
		source      string
		in          string
		dest        string
		out         string
		masqueraded bool
	}{
		// The networks for documentation are in use here, and denied.
		{"web-0 internet", "172.16.0.2", "zvm0", "198.18.0.1", "eth0", true},
		{"internet web-0", "198.18.0.1", "eth0", "172.16.0.2", "zvm0", false},
		{"web-0 db-0", "172.16.0.2", "zvm0", "172.16.0.10", "zvm2", false},
		{"web-0 host", "172.16.0.2", "zvm0", "172.16.0.1", "", false},
		{"host web-1", "172.16.0.5", "", "172.16.0.6", "zvm1", false},
		{"198.51.100.1 web-1", "198.51.100.1", "", "172.16.0.6", "zvm1", false},
		{"internet host", "198.18.0.1", "eth0", "192.0.2.1", "", false},
		{"198.51.100.2 web-0", "198.51.100.2", "lan0", "172.16.0.2", "zvm0", false},
		{"host host", "127.0.0.1", "", "127.0.0.1", "", false},
		{"missing internet", "172.16.0.18", "zvm4", "198.18.0.1", "", false},
		{"web-0 2001:db8::1", "invalid IP", "zvm0", "2001:db8::1", "", false},
	}
	p := newPlace(t, true)
	for _, test := range tests {
		words := strings.Fields(test.ask)
		got, err := p.explain(t, words[0], words[1], "")
		if err != nil {
			t.Errorf("%s: %v", test.ask, err)
			continue
		}
		f := got.Flow
		if f.Source.String() != test.source || f.From.Name != test.in || f.Dest.String() != test.dest || f.To.Name != test.out || got.Masqueraded != test.masqueraded {
			t.Errorf("%s: from %s by %s to %s by %s, masqueraded %t; want %+v", test.ask, f.Source, f.From.Name, f.Dest, f.To.Name, got.Masqueraded, test)
		}
	}
}

// TestNotes: an answer that is not the last word says so.
func TestNotes(t *testing.T) {
	p := newPlace(t, true)
	for ask, want := range map[string]string{
		"web-0 web-1":       "",
		"host internet":     "other rules and settings of this host decide",
		"host 2001:db8::1":  "an IPv6 address is never one of a VM",
		"missing internet":  "zwrm network check",
		"web-0 127.0.0.1":   "zwrm doctor",
		"web-0 2001:db8::1": "",
	} {
		words := strings.Fields(ask)
		got, err := p.explain(t, words[0], words[1], "")
		if err != nil || !strings.Contains(got.Note, want) || (want == "") != (got.Note == "") {
			t.Errorf("%s: note %q, %v; want %q", ask, got.Note, err, want)
		}
	}
}

// TestKernelHasNoWay: what the kernel does not route, no rule lets pass.
func TestKernelHasNoWay(t *testing.T) {
	p := newPlace(t, true)
	must(t, p.kernel.SetSysctl("net/ipv4/ip_forward", "0"))
	question{"web-0 internet", false, verdict.NoRoute, "the kernel has no route from 172.16.0.2 to 198.18.0.1, or does not forward"}.check(t, p)
	question{"web-0 host", true, firewall.Ping, ""}.check(t, p)
	must(t, p.kernel.SetSysctl("net/ipv4/ip_forward", "1"))
	p.kernel.RemoveLink("eth0")
	question{"web-0 internet", false, verdict.NoRoute, ""}.check(t, p)
	question{"internet web-0", false, verdict.NoRoute, `there is no interface "eth0"`}.check(t, p)
	question{"host 8.8.8.8", false, verdict.NoRoute, "the kernel has no route to 8.8.8.8, or does not forward"}.check(t, p)
	p.link(t, host.Link{Name: "eth0", Up: true, Addresses: prefixes("192.0.2.1/24")}) // without a default route
	question{"8.8.8.8 web-0", false, firewall.Unpublished, ""}.check(t, p)
}

// TestDrift: the evaluator judges by the groups and addresses that links have, not by
// those that they should have.
func TestDrift(t *testing.T) {
	p := newPlace(t, true)
	must(t, p.kernel.SetGroup(t.Context(), model.AppID(2).Group(), "zvm0"))
	question{"web-0 web-1", false, firewall.OtherApp, "zvm0 and zvm1 are not both in the group of app web: zwrm network check"}.check(t, p)
	p = newPlace(t, true)
	p.kernel.ChangeLink("zvm0", func(l *host.Link) { l.Addresses = prefixes("192.168.7.1/24") })
	question{"web-0 internet", false, firewall.Spoofed, ""}.check(t, p)
	question{"web-0 host", false, firewall.Spoofed, ""}.check(t, p)
}

func TestRefuses(t *testing.T) {
	tests := []struct {
		ask        string
		code       model.Code
		says, hint string
	}{
		{"web-7 internet", model.NotFound, `no VM named "web-7"`, "zwrm ps lists the VMs"},
		{"internet web", model.NotFound, `no VM named "web"`, "name one of its VMs, such as web-0"},
		{"web-0 1.2.3", model.NotFound, `no VM named "1.2.3"`, "an IP address"},
		{"web-0 web-0", model.Invalid, "is both ends", ""},
		{"172.16.0.2 web-0", model.Invalid, "is both ends", ""},
		{"224.0.0.1 web-0", model.Invalid, "nobody sends from", ""},
		{"0.0.0.0 web-0", model.Invalid, "nobody sends from", ""},
		{"8.8.8.8 2001:db8::1", model.Invalid, "different families", ""},
	}
	p := newPlace(t, true)
	for _, test := range tests {
		words := strings.Fields(test.ask)
		got, err := p.explain(t, words[0], words[1], "")
		var problem *model.Problem
		if !errors.As(err, &problem) || problem.Code != test.code || !strings.Contains(err.Error(), test.says) || !strings.Contains(problem.Hint, test.hint) {
			t.Errorf("%s: %+v, %#v", test.ask, got, err)
		}
	}
	p.kernel.ChangeLink("eth0", func(l *host.Link) { l.Addresses = nil })
	if _, err := p.explain(t, "internet", "host", ""); err == nil || !strings.Contains(err.Error(), `"eth0" has no IPv4 address`) {
		t.Errorf("host without an address: %v", err)
	}
}

// TestKernelFails: an answer is not made up when the kernel gives none.
func TestKernelFails(t *testing.T) {
	for _, ask := range []string{"web-0 db-0", "web-0 internet", "internet web-0", "198.51.100.2 web-0", "host web-0"} {
		words := strings.Fields(ask)
		for nth := 1; ; nth++ {
			p := newPlace(t, true)
			tired := errors.New("the kernel is tired")
			asked := 0
			p.kernel.Fail = func(op string) error {
				if strings.HasPrefix(op, "route ") {
					if asked++; asked == nth {
						return tired
					}
				}
				return nil
			}
			got, err := p.explain(t, words[0], words[1], "")
			if asked < nth {
				break // it asks no more often
			}
			if !errors.Is(err, tired) {
				t.Errorf("%s, look-up %d fails: %+v, %v", ask, nth, got, err)
			}
		}
	}
}

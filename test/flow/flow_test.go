package flow_test

import (
	"net/netip"
	"strings"
	"testing"

	"zwrm/internal/config"
	"zwrm/internal/firewall"
	"zwrm/internal/model"
	"zwrm/test/zwrmtest"
)

// TestPrivateNetworkingOn tries the table with private networking.
func TestPrivateNetworkingOn(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, dataplane config.Dataplane) { tryTable(t, dataplane, true) })
}

// TestPrivateNetworkingOff tries the table without private networking, as it is by
// default.
func TestPrivateNetworkingOff(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, dataplane config.Dataplane) { tryTable(t, dataplane, false) })
}

func tryTable(t *testing.T, dataplane config.Dataplane, private bool) {
	w := newWorld(t, dataplane, private, nil)
	phases := []struct {
		phase
		begin func()
	}{
		{running, func() {}},
		{killed, w.daemon.Kill},
		{restarted, func() { w.daemon.Start(t) }},
		{stopped, func() { w.daemon.Stop(t) }},
		{unassigned, func() { w.daemon.Start(t); w.unassign(t) }},
	}
	for _, p := range phases {
		p.begin()
		w.forget()
		t.Run(string(p.phase), func(t *testing.T) {
			w.tryAll(t, func(f flow) bool { return f.inWorld(private) && f.phase == p.phase })
		})
	}
	w.removeRules(t)
	t.Run("without rules all pass", func(t *testing.T) {
		for _, f := range flows(t) {
			if f.pass || !f.inWorld(private) || f.phase != running {
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

// unassign takes web-0's TAP out of its app, while no zwrmd lives that would mend it.
func (w *world) unassign(t *testing.T) {
	t.Helper()
	w.daemon.Kill()
	w.Run(t, "ip", "link", "set", "zvm0", "group", model.GroupUnassigned.String())
}

// TestPrediction: the evaluator, which only knows the rules, says of each flow of the
// table what the kernel does with it, and which rule decides.
func TestPrediction(t *testing.T) {
	t.Parallel()
	for _, private := range []bool{false, true} {
		rules := firewall.Build(firewall.Policy{
			Subnet: netip.MustParsePrefix("172.16.0.0/16"), External: zwrmtest.Uplink, Private: private,
			EgressDeny: []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("203.0.113.0/25")},
			HostAccess: []model.Service{{Protocol: model.TCP, Port: 8080}, {Protocol: model.UDP, Port: 53}},
			Apps:       []firewall.App{{Name: "web", Group: webGroup}},
		})
		for _, f := range flows(t) {
			if !f.inWorld(private) || f.phase == stopped { // without rules and links
				continue
			}
			got := rules.Decide(predicted(t, f))
			masquerade := f.seenAs == zwrmtest.HostAddress
			if (got.Verdict == firewall.Accept) != f.pass || got.Rule.Reason != f.by || got.Masquerade != masquerade {
				t.Errorf("%s, %s: predicted %s by %q, masquerade %t; want pass %t by %q, masquerade %t",
					f, f.phase, got.Verdict, got.Rule, got.Masquerade, f.pass, f.by, masquerade)
			}
		}
	}
}

const webGroup, dbGroup = model.GroupUnassigned + 1, model.GroupUnassigned + 2

// predicted returns what the host finds out about the packet of a flow.
func predicted(t *testing.T, f flow) firewall.Flow {
	t.Helper()
	device := func(name string) firewall.Device {
		switch {
		case strings.Contains(name, "gateway"), strings.HasPrefix(name, "host"):
			return firewall.Device{}
		case name == "lan":
			return firewall.Device{Name: "lan0"}
		case name == "web-0" && f.phase == unassigned:
			return firewall.Device{Name: "zvm0", Group: model.GroupUnassigned}
		case strings.HasPrefix(name, "web-"):
			return firewall.Device{Name: "zvm" + name[4:], Group: webGroup}
		case name == "db-0":
			return firewall.Device{Name: "zvm2", Group: dbGroup}
		}
		return firewall.Device{Name: zwrmtest.Uplink}
	}
	addresses := map[string]string{
		"web-0": "172.16.0.2", "web-1": "172.16.0.6", "db-0": "172.16.0.10", "nobody": "172.16.200.2",
		"metadata": "169.254.169.254", "denied": "203.0.113.9", "beside-denied": "203.0.113.200",
	}
	address := func(name string) netip.Addr {
		if known, ok := addresses[name]; ok {
			return netip.MustParseAddr(known)
		}
		return netip.MustParseAddr(zwrmtest.OutsideAddress)
	}
	p := firewall.Flow{Family: firewall.IPv4, From: device(f.from), To: device(f.to), Source: address(f.from), Dest: address(f.to)}
	if f.state != fresh {
		p.Is = append(p.Is, firewall.Packet(f.state))
	}
	if f.to == "own-gateway" {
		p.Is = append(p.Is, firewall.ToGateway)
		if f.state == fresh && f.protocol == "icmp" {
			p.Is = append(p.Is, firewall.EchoGateway)
		}
	}
	if f.protocol != "icmp" {
		var err error
		if p.Service, err = model.ParseService(f.protocol); err != nil {
			t.Fatal(err)
		}
	}
	return p
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
// and forbid in their own chains, all that must pass does: our chains come first in
// iptables, and nftables has accepts in the places that both offer. What must not
// pass does not.
func TestHostThatDrops(t *testing.T) { t.Parallel(); onBoth(t, testHostThatDrops) }

func testHostThatDrops(t *testing.T, dataplane config.Dataplane) {
	w := newWorld(t, dataplane, true, func(h *zwrmtest.Host) {
		h.Foreign(t)
		commands := []string{"-P FORWARD DROP", "-P INPUT DROP", "-P OUTPUT DROP", "-A DOCKER-USER -j DROP"}
		if dataplane == config.Iptables { // an accept in a place of somebody's is too late for this
			commands = append(commands, "-I FORWARD 1 -j DROP")
		}
		for _, command := range commands {
			h.Run(t, "iptables", strings.Fields(command)...)
		}
	})
	w.tryAll(t, func(f flow) bool { return f.inWorld(true) && f.ofVMs() && f.phase == running && f.state == fresh })
}

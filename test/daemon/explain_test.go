package daemon_test

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"zwrm/internal/host/nstest"
	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// explain returns what zwrm network explain says.
func explain(t *testing.T, d *zwrmtest.Daemon, source, target string, options ...string) wire.Explanation {
	t.Helper()
	var e wire.Explanation
	args := append([]string{"network", "explain", source, target, "-o", "json"}, options...)
	must(t, json.Unmarshal([]byte(d.Must(t, args...)), &e))
	return e
}

// TestExplain: what zwrm network explain says of a packet is what becomes of a real
// one, on both dataplanes.
func TestExplain(t *testing.T) {
	t.Parallel()
	for _, dataplane := range []string{"iptables", "nftables"} {
		t.Run(dataplane, func(t *testing.T) {
			t.Parallel()
			testExplain(t, dataplane)
		})
	}
}

func testExplain(t *testing.T, dataplane string) {
	h := zwrmtest.NewHost(t)
	lan := nstest.New(t)
	nstest.Veth(t, h.Namespace, "lan0", lan, "eth0")
	h.Address(t, "lan0", netip.MustParsePrefix("198.51.100.1/24"))
	lan.Address(t, "eth0", netip.MustParsePrefix("198.51.100.2/24"))
	lan.Route(t, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("198.51.100.1"))
	h.Outside.Route(t, netip.MustParsePrefix("198.51.100.0/24"), netip.MustParseAddr(zwrmtest.HostAddress))
	h.Outside.Address(t, "lo", netip.MustParsePrefix("203.0.113.9/32"))
	d := h.Start(t, zwrmtest.Settings{
		"network.firewall":       strconv.Quote(dataplane),
		"network.bridge.enabled": "true",
		"network.host_access":    `["tcp/8080", "udp/53"]`,
		"network.egress_deny":    `["203.0.113.0/25"]`,
	})
	machines := map[string]*nstest.Namespace{"host": h.Namespace, zwrmtest.OutsideAddress: h.Outside, "198.51.100.2": lan}
	for _, name := range []string{"web-0", "web-1", "db-0"} {
		app, _, _ := strings.Cut(name, "-")
		machines[name] = d.Guest(t, name, app).Namespace
	}
	for _, ns := range machines {
		zwrmtest.Serve(t, ns, "tcp/80", "tcp/8080", "udp/53")
	}
	// web-0 has 172.16.0.2, web-1 .6, db-0 .10.
	for _, test := range []struct{ source, target, reason string }{
		{"web-0", "web-1", "app"},
		{"web-0", "web-1:80", "app"},
		{"web-1", "172.16.0.2:53/udp", "app"},
		{"web-0", "db-0", "other-app"},
		{"db-0", "web-1:80/tcp", "other-app"},
		{"web-0", "192.0.2.2", "internet"},
		{"db-0", "192.0.2.2:53/udp", "internet"},
		{"web-0", "203.0.113.9:80", "egress-denied"},
		{"web-0", "198.51.100.2", "other-interface"},
		{"web-0", "172.16.200.2", "no-such-vm"},
		{"192.0.2.2", "web-0:80", "not-published"},
		{"198.51.100.2", "web-0", "not-published"},
		{"web-0", "host", "ping-gateway"},
		{"web-0", "host:8080", "host-access"},
		{"web-0", "host:80", "host"},
		{"web-0", "172.16.0.5:8080", "host"}, // the gateway of web-1
		{"web-0", "192.0.2.1:53/udp", "host"},
		{"host", "db-0:80", "from-host"},
		{"192.0.2.2", "host:80", "no-rule"},
		{"198.51.100.2", "192.0.2.2", "no-rule"},
	} {
		t.Run(test.source+" "+strings.ReplaceAll(test.target, "/", ":"), func(t *testing.T) {
			t.Parallel()
			said := explain(t, d, test.source, test.target)
			if said.Reason != test.reason {
				t.Errorf("reason %q, want %q", said.Reason, test.reason)
			}
			passes, err := reachesTarget(t, machines[test.source], said)
			if passes != (said.Verdict == "pass") {
				t.Errorf("explain says %s, and a real one passes: %t (%v)", said.Verdict, passes, err)
			}
		})
	}
	checkTraces(t, d)
	// The words stand for addresses that are in use for nothing else.
	for _, test := range []struct{ source, target, reason, address string }{
		{"web-0", "internet:443", "internet", "198.18.0.1"},
		{"internet", "web-0:80", "not-published", "198.18.0.1"},
	} {
		said := explain(t, d, test.source, test.target)
		if said.Reason != test.reason || said.Source != test.address && said.Destination != test.address {
			t.Errorf("%s to %s: %+v", test.source, test.target, said)
		}
	}
}

// checkTraces: a trace sends a packet of its own, and the kernel names the same rule.
func checkTraces(t *testing.T, d *zwrmtest.Daemon) {
	t.Helper()
	for _, test := range []struct{ source, target, reason string }{
		{"web-0", "web-1:80", "app"},
		{"web-0", "db-0", "other-app"},
		{"db-0", "192.0.2.2:53/udp", "internet"},
		{"web-0", "203.0.113.9:80", "egress-denied"},
		{"192.0.2.2", "web-0:80", "not-published"},
		{"web-0", "host:8080", "host-access"},
		{"web-0", "192.0.2.1:53/udp", "host"},
		{"host", "db-0:80", "from-host"},
	} {
		said := explain(t, d, test.source, test.target, "--trace")
		if said.Trace == nil || !said.Trace.Agrees || said.Reason != test.reason || !strings.Contains(said.Trace.Rule, `"zwrm: `+test.reason) {
			t.Errorf("%s to %s: %+v, trace %+v", test.source, test.target, said, said.Trace)
		}
	}
}

// reachesTarget tries what an explanation is about with real packets.
func reachesTarget(t *testing.T, from *nstest.Namespace, said wire.Explanation) (passes bool, err error) {
	within := 400 * time.Millisecond
	if said.Verdict == "pass" {
		within = 10 * time.Second
	}
	to := netip.MustParseAddr(said.Destination)
	network, port, hasPort := strings.Cut(said.Service, "/")
	if !hasPort {
		err = zwrmtest.Ping(t, from, to, within)
		return err == nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	must(t, err)
	_, err = zwrmtest.Ask(t, from, network, netip.AddrPortFrom(to, uint16(number)), within)
	return err == nil, err
}

// TestExplainLiveState: the answer follows the host: routes and links of others.
func TestExplainLiveState(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, private())
	d.Attach(t, "one", "web")
	d.Attach(t, "two", "web")
	for _, step := range []struct{ spoil, source, target, reason, mend string }{
		{"true", "one", "two", "app", "true"},
		{"ip route add prohibit 198.51.100.9", "one", "198.51.100.9", "no-route", "ip route del prohibit 198.51.100.9"},
		{"ip tuntap add zvm99 mode tap\nip address add 172.16.1.141/30 dev zvm99\nip link set zvm99 up", "host", "172.16.1.142", "stray-tap", "ip link del zvm99"},
		{"true", "one", "two", "app", "true"},
	} {
		shell(t, h, step.spoil)
		if said := explain(t, d, step.source, step.target); said.Reason != step.reason {
			t.Errorf("after %q, %s to %s: %+v, want reason %q", step.spoil, step.source, step.target, said, step.reason)
		}
		shell(t, h, step.mend)
	}
	d.Must(t, "network", "check")
	contains(t, "answer", d.Must(t, "network", "explain", "one", "[2001:db8::1]:443/tcp"), "drop: IPv6 of VMs is off (no-ipv6)\n")
	if r := d.Zwrm(t, "network", "explain", "one", "three"); r.Status != 1 || !strings.Contains(r.Stderr, `no VM named "three"`) {
		t.Errorf("a VM that is not there: exit status %d, %s", r.Status, r.Stderr)
	}
}

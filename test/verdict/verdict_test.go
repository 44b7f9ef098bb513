package verdict_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/config"
	"zwrm/internal/firewall"
	"zwrm/internal/firewall/iptables"
	"zwrm/internal/firewall/nftables"
)

var (
	seed    = flag.Uint64("seed", 0, "makes the same rules and packets again; 0: others each time")
	ruleset = flag.Int("rulesets", 40, "how many rulesets are tried")
)

// packets is how many packets each ruleset is asked about.
const packets = 60

// TestVerdicts: of random packets under random rules, each dataplane lets pass,
// drops and masquerades just those that the evaluator says.
func TestVerdicts(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	for _, dataplane := range []config.Dataplane{config.Iptables, config.Nftables} {
		t.Run(string(dataplane), func(t *testing.T) { tryRulesets(t, dataplane) })
	}
}

func tryRulesets(t *testing.T, dataplane config.Dataplane) {
	t.Logf("-seed %d", *seed)
	s := newSite(t)
	r := &random{Rand: rand.New(rand.NewPCG(*seed, 1)), site: s}
	apply := s.open(dataplane)
	open := firewall.Ruleset{Rules: []firewall.Rule{{Stage: firewall.Forward, Family: firewall.IPv4, Packet: firewall.Established, Verdict: firewall.Accept, Reason: "open"}}}
	if err := apply(t.Context(), open); err != nil {
		t.Fatal(err)
	}
	s.pinned(r.connect)
	tried := map[firewall.Verdict]int{}
	for n := range *ruleset {
		rules := r.policy()
		if n%2 == 1 {
			rules = r.rules()
		}
		if err := apply(t.Context(), rules); err != nil {
			t.Fatalf("apply: %v\n%s", err, text(rules))
		}
		if dataplane == config.Iptables { // keeps account of all connections
			rules.Rules = slices.DeleteFunc(rules.Rules, func(r firewall.Rule) bool { return r.Verdict == firewall.Untrack })
		}
		var sent []packet
		s.pinned(func() {
			for range packets {
				p := r.packet()
				sent = append(sent, p)
				s.send(p)
			}
			s.settle()
		})
		for _, p := range sent {
			tried[s.compare(t, rules, p)]++
		}
		if t.Failed() {
			t.Fatalf("under the rules\n%s", text(rules))
		}
	}
	t.Logf("%v", tried)
	if tried[firewall.Accept] < packets || tried[firewall.Drop] < packets {
		t.Errorf("of %d rulesets with %d packets each: %v, which proves nothing", *ruleset, packets, tried)
	}
}

// open opens a dataplane in the site's namespace and returns what applies rules.
func (s *site) open(dataplane config.Dataplane) func(context.Context, firewall.Ruleset) error {
	s.t.Helper()
	var err error
	var nft *nftables.Dataplane
	var ipt *iptables.Dataplane
	s.Do(s.t, func() {
		if dataplane == config.Iptables {
			ipt, err = iptables.Open(s.t.Context(), nil)
		} else {
			nft, err = nftables.Open(s.t.Context(), nil)
		}
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if nft != nil {
		s.t.Cleanup(func() { nft.Close() })
		return nft.Apply // its socket is in the namespace
	}
	return func(ctx context.Context, rules firewall.Ruleset) (err error) {
		s.Do(s.t, func() { err = ipt.Apply(ctx, rules) }) // its programs have to be
		return err
	}
}

// pinned calls f on one CPU. What enters by two devices then stays in order, since
// each CPU has one queue for all of them.
func (s *site) pinned(f func()) {
	s.t.Helper()
	done := make(chan struct{})
	go func() { // the thread ends with it
		defer close(done)
		runtime.LockOSThread()
		var one unix.CPUSet
		one.Set(0)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			s.t.Errorf("stay on one CPU: %v", err)
			return
		}
		f()
	}()
	<-done
}

// compare fails the test if something else became of the packet than the evaluator
// says.
func (s *site) compare(t *testing.T, rules firewall.Ruleset, p packet) firewall.Verdict {
	t.Helper()
	want := rules.Decide(p.Flow)
	got, passed := s.observe[p.id]
	delete(s.observe, p.id)
	switch {
	case passed != (want.Verdict == firewall.Accept):
		t.Errorf("%s\nevaluator: %s by %q\nkernel: passes %t", p, want.Verdict, want.Rule, passed)
	case !passed:
	case got.by != p.out:
		t.Errorf("%s\ncame out by %q", p, got.by)
	case (got.source != p.source) != want.Masquerade && !s.owns(p.source, p.out):
		t.Errorf("%s\nevaluator: masqueraded %t\nkernel: source %s", p, want.Masquerade, got.source)
	}
	return want.Verdict
}

// owns reports whether the address is the host's on the device: masquerading changes
// nothing of it.
func (s *site) owns(a netip.Addr, device string) bool {
	w, local := s.owner(a)
	return local && w.Name == device
}

func text(rules firewall.Ruleset) string {
	var b strings.Builder
	for _, rule := range rules.Rules {
		b.WriteString(rule.String() + "\n")
	}
	return b.String()
}

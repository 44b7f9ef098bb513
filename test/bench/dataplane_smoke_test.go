package bench_test

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/firewall"
	"zwrm/test/bench/figures"
)

// TestPackets: what the benchmark times is what it says. New flows are new to every
// host, connection tracking understands each packet where there is any, and the rules
// of the dataplanes are at work.
func TestPackets(t *testing.T) {
	const rounds = 3
	w := newWorld(t, scale{apps: 4, pairs: 2, couples: 1})
	flows := len(w.routers[0].pairs) // of greetings
	for _, r := range w.routers {
		if r.rules == masquerade {
			r.dropInvalid(t) // would be an error then
		}
	}
	for _, path := range figures.Paths() {
		for _, metric := range figures.Metrics() {
			o := w.measure(t, path, metric, rounds)
			if len(o.ratios) != len(w.routers)-1 || o.rounds != rounds {
				t.Errorf("%s %s: %d rounds, ratios of %d hosts", path, metric, o.rounds, len(o.ratios))
			}
			units := len(w.routers[0].pairs)
			if path == figures.GuestToGuest {
				units = len(w.couples)
			}
			if metric != figures.RoundTrip {
				flows += rounds * units
			}
			for _, r := range w.routers {
				want := flows
				if r.rules != masquerade && r.rules != onIptables { // nftables does without between VMs
					want = 0
				}
				if got := r.tracked(t); got != want {
					t.Errorf("%s %s: host %q tracks %d flows, want %d", path, metric, r.rules, got, want)
				}
			}
		}
	}
	for _, r := range w.routers {
		ours := r.rules == onNftables || r.rules == onIptables
		if err := r.trespass(); errors.Is(err, unix.EAGAIN) != ours {
			t.Errorf("host %q, frame to another app: %v", r.rules, err)
		}
	}
}

// dropInvalid drops what connection tracking does not understand.
func (r *router) dropInvalid(t *testing.T) {
	t.Helper()
	r.ns.Do(t, func() {
		out, err := exec.Command("iptables", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP").CombinedOutput()
		if err != nil {
			t.Fatalf("iptables: %v: %s", err, out)
		}
	})
}

// tracked returns how many flows the kernel knows.
func (r *router) tracked(t *testing.T) (flows int) {
	t.Helper()
	r.ns.Do(t, func() {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		must(t, err)
		flows, err = strconv.Atoi(strings.TrimSpace(string(text)))
		must(t, err)
	})
	return flows
}

// trespass sends a frame to a VM of another app. The error wraps EAGAIN if it does not
// arrive.
func (r *router) trespass() error {
	from, to := r.pairs[0], r.pairs[1]
	across := &router{rules: r.rules, buf: r.buf, pairs: []pair{{taps: [2]int{from.taps[0], to.taps[1]}}}}
	return across.carry([]hop{{frame: udp(from.client(clientPort), to.server(serverPort))}})
}

// TestChanges: what is timed changes the kernel's rules, and each change is undone.
func TestChanges(t *testing.T) {
	for _, on := range []rules{onNftables, onIptables} {
		book := newRulebook(t, on, 3)
		before := book.policy
		book.do(t, figures.Add)
		book.check(t, extra())
		book.do(t, figures.Remove)
		book.check(t)
		book.do(t, figures.Rebuild)
		book.check(t)
		book.ns.Do(t, func() {
			if different, err := book.Diff(t.Context(), firewall.Build(before)); err != nil || len(different) == 0 {
				t.Errorf("%s: the rules are as before a rebuild: %v", on, err)
			}
		})
	}
	took := timeChanges(t, []int{2, 3}, 2, figures.Add, figures.Remove, figures.Rebuild)
	for _, row := range figures.Changes() {
		if len(took[row.What]) != 2 || len(took[row.What][0]) != 2 || len(took[row.What][1]) != 2 {
			t.Errorf("%s: %v, want two times for each of two sizes", row.What, took[row.What])
		}
	}
}

func TestRelate(t *testing.T) {
	var took, other []time.Duration
	for i := range 11 { // ratios of 10, 11, ... 20
		took, other = append(took, time.Duration(10*(20-i))), append(other, 10)
	}
	if got, want := relate(took, other, false), (ratios{median: 15, low: 11, high: 19}); got != want {
		t.Errorf("ratios %v, want %v", got, want)
	}
	if got, want := relate(other, took, true), (ratios{median: 15, low: 11, high: 19}); got != want {
		t.Errorf("ratios of rates %v, want %v", got, want)
	}
	if got := median([]time.Duration{9, 1, 5}); got != 5 {
		t.Errorf("median %d", got)
	}
}

func TestSum(t *testing.T) {
	b := []byte{0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7}
	if got := ^sum(0, b); got != 0xb861 {
		t.Errorf("checksum %#x", got)
	}
	at := netip.MustParseAddrPort("172.16.0.2:1")
	if f := udp(at, at); len(f) != headers+8+payload {
		t.Errorf("frame of %d bytes", len(f))
	}
}

// TestText: the figures have a line for each row, or are none.
func TestText(t *testing.T) {
	r := &results{scale: scale{apps: 1600, sizes: []int{10, 10000}}, traffic: map[string]outcome{}, changes: map[string][]time.Duration{}}
	for _, row := range figures.Traffic() {
		r.traffic[row.What] = outcome{plain: time.Microsecond, rate: row.Target.AtLeast != 0, ratios: map[rules]ratios{onNftables: {median: 1}}}
	}
	for _, row := range figures.Changes() {
		if _, err := r.text(); err == nil {
			t.Errorf("text without %q", row.What)
		}
		r.changes[row.What] = []time.Duration{time.Millisecond, 2 * time.Millisecond}
	}
	text, err := r.text()
	if err != nil {
		t.Fatal(err)
	}
	if err := figures.Check(text); err != nil {
		t.Error(err)
	}
	for _, line := range []string{
		"| UDP round trip, established flow, through the host | × 1.05 or less: reached | × 1.00 (0.00-0.00) |",
		"| new TCP connections per second, from guest to guest | × 0.90 or more: reached |",
		"| 1000000/s |",
		"| nftables: add an app's rule | × 1.50 or less: missed | 1 ms | 2 ms | × 2.00 |",
		"| nftables: rebuild all rules | 200 ms or less: reached |",
		"1,600 apps of 10 VMs",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
}

package flow_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"zwrm/internal/config"
	"zwrm/internal/ipam"
	"zwrm/test/zwrmtest"
)

// lie is something that a guest with root may send, and must not get away with.
type lie struct {
	name   string
	reason string // by which each of its frames is counted; "": the kernel takes it, and believes nothing of it
	frames [][]byte
	// counted is how many packets the reason counts; 0: one for each frame.
	counted int
}

// TestLies: whatever a guest sends but honest packets reaches no other VM, no service
// of the host and nobody outside, and changes nothing that the host knows of others.
// Each drop is counted under its reason.
func TestLies(t *testing.T) { t.Parallel(); onBoth(t, testLies) }

func testLies(t *testing.T, dataplane config.Dataplane) {
	w := newWorld(t, dataplane, true, nil)
	l := newLiar(t, w)
	known := l.known(t)
	for _, lie := range l.lies() {
		t.Run(lie.name, func(t *testing.T) {
			before := l.counted(t, lie.reason)
			for _, frame := range lie.frames {
				if err := l.Send(frame); err != nil {
					t.Fatal(err)
				}
			}
			l.barrier(t)
			want := lie.counted
			if want == 0 {
				want = len(lie.frames)
			}
			if lie.reason != "" {
				l.awaitCount(t, lie.reason, before+uint64(want))
			}
			l.nobodyHeard(t)
			if got := l.known(t); got != known {
				t.Errorf("the host knows something else now:\n%s", zwrmtest.Changes(known, got))
			}
		})
	}
	// What the TAP counted does not go with it.
	before := l.counted(t, "not-taken")
	w.daemon.Must(t, "detach", "web-2")
	l.awaitCount(t, "not-taken", before)
}

// liar is the guest web-2, who lies, among machines that are silent otherwise.
type liar struct {
	*zwrmtest.Guest
	w    *world
	mac  ipam.MAC
	port uint16 // of the last honest packet

	victim, stranger, internet, lan, host, gateway netip.Addr
}

func newLiar(t *testing.T, w *world) *liar {
	t.Helper()
	guest := w.guest(t, "web-2")
	l := &liar{Guest: guest, w: w, mac: ipam.MACOf(guest.Address()), port: honest,
		victim: w.machines["web-1"].address, stranger: w.machines["db-0"].address,
		internet: netip.MustParseAddr(zwrmtest.OutsideAddress), lan: w.machines["lan"].address,
		host: netip.MustParseAddr(zwrmtest.HostAddress), gateway: guest.Gateway()}
	// All neighbours are known, so that a lie about one would change something.
	for _, name := range []string{"web-0", "web-1", "web-2", "db-0", "internet", "lan"} {
		if _, err := w.try(t, flow{from: "host", to: name, protocol: "icmp"}, answered); err != nil {
			t.Fatalf("host to %s: %v", name, err)
		}
	}
	// Connections of others, for made-up errors about them.
	exchange(t, w, "db-0", strangersPort)
	exchange(t, w, "host", hostsPort)
	return l
}

// The ports that tell packets of a liar's world apart.
const (
	strangersPort = 4100
	hostsPort     = 4200
	honest        = 20000 // and upward, to
	discard       = 9     // where nobody answers: the liar's own system would send an error
)

// exchange makes a UDP connection from a machine to the internet.
func exchange(t *testing.T, w *world, from string, port uint16) {
	t.Helper()
	m := w.machines[from]
	conn := listenUDP(t, m.Namespace, netip.AddrPortFrom(m.address, port))
	peer := listenUDP(t, w.Outside, netip.AddrPortFrom(netip.MustParseAddr(zwrmtest.OutsideAddress), port))
	send(t, conn, "ping", peer.LocalAddr())
	send(t, peer, "pong", receive(t, peer, "ping"))
	receive(t, conn, "pong")
}

// barrier sends an honest packet to the internet and waits for it: what was sent
// before has gone where it goes.
func (l *liar) barrier(t *testing.T) {
	t.Helper()
	l.port++
	packet := udp4(netip.AddrPortFrom(l.Address(), l.port), netip.AddrPortFrom(l.internet, discard))
	if err := l.Send(ethernet(l.mac, etherTypeIPv4, packet)); err != nil {
		t.Fatal(err)
	}
	l.w.machines["internet"].capture.Await(t, "honest packet", func(p zwrmtest.Packet) bool { return p.SrcPort == l.port })
}

// nobodyHeard fails the test if a machine got anything but what was sent in honesty.
func (l *liar) nobodyHeard(t *testing.T) {
	t.Helper()
	for _, name := range []string{"web-0", "web-1", "db-0", "lan", "internet"} {
		got := l.w.machines[name].capture.Find(func(p zwrmtest.Packet) bool { return !l.expected(p) })
		if len(got) > 0 {
			t.Errorf("reached %s: %v", name, got)
		}
	}
	for _, port := range services() {
		for _, from := range l.w.machines["host"].service.Askers(port) {
			t.Errorf("%s asked the host at %s", from, port)
		}
	}
}

// expected reports whether a packet is one of newLiar, of barrier, or the answer to
// one.
func (l *liar) expected(p zwrmtest.Packet) bool {
	switch p.Protocol {
	case zwrmtest.ICMP:
		return p.DstPort == 8 || p.DstPort == 0 // the host's pings
	case zwrmtest.UDP:
		return slices.Contains([]uint16{strangersPort, hostsPort}, p.DstPort) || p.SrcPort >= honest && p.DstPort == discard
	}
	return false
}

// known returns what the host knows of neighbours and ways, without what changes
// with time.
func (l *liar) known(t *testing.T) string {
	t.Helper()
	state := regexp.MustCompile(` (REACHABLE|STALE|DELAY|PROBE|used|expires|users|age) ?\S*`)
	var lines []string
	for _, command := range []string{"ip -4 neigh", "ip -6 neigh", "ip route show table all", "ip -6 route show table all", "ip route show cache"} {
		words := strings.Fields(command)
		for line := range strings.Lines(l.w.Run(t, words[0], words[1:]...)) {
			lines = append(lines, state.ReplaceAllString(strings.TrimRight(line, " \n"), ""))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (l *liar) counted(t *testing.T, reason string) uint64 {
	t.Helper()
	if reason == "" {
		return 0
	}
	return l.w.daemon.Dropped(t, reason)
}

// awaitCount waits until a reason has counted so many packets, and no more.
func (l *liar) awaitCount(t *testing.T, reason string, want uint64) {
	t.Helper()
	var got uint64
	for range 50 {
		if got = l.counted(t, reason); got >= want {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if got != want {
		t.Errorf("%q has counted %d packets, want %d", reason, got, want)
	}
	metric := fmt.Sprintf("zwrm_network_dropped_packets_total{reason=%q} %d\n", reason, want)
	if text := l.w.daemon.Metrics(t); !strings.Contains(text, metric) {
		t.Errorf("/metrics has no %q", metric)
	}
}

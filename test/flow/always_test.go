package flow_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"zwrm/internal/config"
	"zwrm/test/zwrmtest"
)

const (
	probePort  = 7777
	probeEvery = time.Millisecond
	// lull is how long a step's state is probed after it was reached.
	lull = 300 * time.Millisecond
)

// TestAlwaysClosed: while zwrmd starts, makes and removes VMs, repairs, is killed,
// stopped and started again, and changes from one dataplane to the other and back,
// a thousand probes a second are sent for each thing that must never pass. None
// arrives. Connections that may be there live on all the while.
func TestAlwaysClosed(t *testing.T) { t.Parallel(); onBoth(t, testAlwaysClosed) }

func testAlwaysClosed(t *testing.T, dataplane config.Dataplane) {
	w := newWorld(t, dataplane, true, nil)
	w.stray(t)
	other := config.Nftables
	if dataplane == config.Nftables {
		other = config.Iptables
	}
	probes := w.probes(t, [][2]string{
		{"web-0", "db-0"}, {"db-0", "web-0"}, {"internet", "web-0"}, {"web-0", "host-eth0"}, {"web-0", "own-gateway"},
		{"stray", "web-0"}, {"stray", "internet"}, {"stray", "own-gateway"}, {"web-0", "stray"}, {"internet", "stray"}, {"host", "stray"},
	})
	lines := []*line{w.connect(t, "web-0", "web-1"), w.connect(t, "web-0", "internet")}
	keep := func(dataplane config.Dataplane) zwrmtest.Settings {
		s := settings(dataplane, true)
		s["network.on_shutdown"] = `"keep"`
		return s
	}
	steps := []struct {
		name string
		do   func()
	}{
		{"make VMs", func() { w.attach(t, 4) }},
		{"remove VMs", func() { w.detach(t, 4) }},
		{"repair", func() { w.daemon.Must(t, "network", "repair") }},
		{"kill", w.daemon.Kill},
		{"start", func() { probes.start(t, w) }},
		{"make and remove VMs", func() { w.attach(t, 2); w.detach(t, 2) }},
		{"kill to keep", func() { w.daemon.Kill(); w.daemon.Configure(t, keep(dataplane)); probes.start(t, w) }},
		{"stop that keeps", func() { w.daemon.Stop(t) }},
		{"switch", func() { w.daemon.Configure(t, keep(other)); probes.start(t, w); w.onlyRulesOf(t, other) }},
		{"kill again", w.daemon.Kill},
		{"switch back", func() { w.daemon.Configure(t, keep(dataplane)); probes.start(t, w); w.onlyRulesOf(t, dataplane) }},
	}
	run := func(name string, do func()) {
		before := probes.sent.Load()
		do()
		time.Sleep(lull)
		probes.none(t, name)
		if probes.sent.Load() == before {
			t.Fatalf("%s: nothing was probed", name)
		}
	}
	run("begin", func() {})
	for _, step := range steps {
		run(step.name, step.do)
		for _, l := range lines {
			l.echo(t, step.name)
		}
	}
	// A clean stop takes the rules away, and a TAP that is not ours is its maker's again.
	w.daemon.Kill()
	w.daemon.Configure(t, settings(dataplane, true))
	probes.start(t, w)
	probes.stray.Store(false)
	run("stop", func() { w.daemon.Stop(t) })
	run("start after a stop", func() { probes.start(t, w) })
	lines[0].echo(t, "start after a stop")
	t.Logf("%d probes sent", probes.sent.Load())

	probes.stray.Store(true)
	w.removeRules(t)
	probes.all(t)
}

// attach makes apps of two VMs each.
func (w *world) attach(t *testing.T, apps int) {
	t.Helper()
	for n := range 2 * apps {
		w.daemon.Attach(t, fmt.Sprintf("more-%d", n), fmt.Sprintf("more%d", n/2))
	}
}

func (w *world) detach(t *testing.T, apps int) {
	t.Helper()
	for n := range 2 * apps {
		w.daemon.Must(t, "detach", fmt.Sprintf("more-%d", n))
	}
}

// onlyRulesOf fails the test if the other dataplane has left anything.
func (w *world) onlyRulesOf(t *testing.T, dataplane config.Dataplane) {
	t.Helper()
	for name, command := range map[config.Dataplane][]string{
		config.Iptables: {"sh", "-c", "iptables-save; ip6tables-save"},
		config.Nftables: {"nft", "list", "tables", "inet"},
	} {
		found := strings.Count(w.Run(t, command[0], command[1:]...), map[config.Dataplane]string{config.Iptables: "ZWRM-", config.Nftables: "zwrm"}[name])
		if (found > 0) != (name == dataplane) {
			t.Errorf("with %s there are %d lines of rules of %s", dataplane, found, name)
		}
	}
}

// probes are what must never arrive.
type probes struct {
	pairs []*pair
	sent  atomic.Int64
	stray atomic.Bool // the machine behind the stray TAP sends, and is sent to
}

// pair is a sender and a receiver of probes.
type pair struct {
	from, to string
	arrived  func() int
}

// probes begins to send from each first machine to the second. It goes on until the
// test ends.
func (w *world) probes(t *testing.T, pairs [][2]string) *probes {
	t.Helper()
	p := &probes{}
	p.stray.Store(true)
	heard := w.hearProbes(t)
	end := make(chan struct{})
	var senders sync.WaitGroup
	t.Cleanup(func() { close(end); senders.Wait() })
	for _, names := range pairs {
		from, to := w.machines[names[0]], w.target(flow{from: names[0], to: names[1]})
		source := from.address
		if names[0] == "host" {
			source = w.machines["stray-gateway"].address
		}
		it := &pair{from: names[0], to: names[1], arrived: func() int { return heard(source) }}
		if to.capture != nil {
			it.arrived = func() int {
				return len(to.capture.Find(func(p zwrmtest.Packet) bool {
					return p.DstPort == probePort && p.Dst == to.address && (p.Src == source || p.Src == netip.MustParseAddr(zwrmtest.HostAddress))
				}))
			}
		}
		p.pairs = append(p.pairs, it)
		conn := listenUDP(t, from.Namespace, netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
		dest := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.address, probePort))
		senders.Go(func() { p.send(conn, dest, it.ofStray(), end) })
	}
	return p
}

// hearProbes listens on the host. It returns how many probes came from an address.
func (w *world) hearProbes(t *testing.T) func(from netip.Addr) int {
	t.Helper()
	var mu sync.Mutex
	heard := map[netip.Addr]int{}
	conn := listenUDP(t, w.Namespace, netip.AddrPortFrom(netip.IPv4Unspecified(), probePort))
	go func() {
		var buf [64]byte
		for {
			_, from, err := conn.ReadFromUDPAddrPort(buf[:])
			if err != nil {
				return // closed
			}
			mu.Lock()
			heard[from.Addr().Unmap()]++
			mu.Unlock()
		}
	}()
	return func(from netip.Addr) int {
		mu.Lock()
		defer mu.Unlock()
		return heard[from]
	}
}

func (i *pair) ofStray() bool { return i.from == "stray" || i.to == "stray" }

// send sends probes until end is closed. Those that the own kernel refuses count as
// well: they are tried.
func (p *probes) send(conn *net.UDPConn, to net.Addr, ofStray bool, end <-chan struct{}) {
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-end:
			return
		}
		if ofStray && !p.stray.Load() {
			continue
		}
		_, _ = conn.WriteTo([]byte("probe"), to)
		p.sent.Add(1)
	}
}

// start starts zwrmd, which refuses to while a TAP that it did not make has a name of
// ours: so that one has another name meanwhile.
func (p *probes) start(t *testing.T, w *world) {
	t.Helper()
	const other = "made0"
	rename := func(from, to string) {
		w.Run(t, "ip", "link", "set", from, "down")
		w.Run(t, "ip", "link", "set", from, "name", to)
		w.Run(t, "ip", "link", "set", to, "up")
	}
	p.stray.Store(false)
	time.Sleep(10 * probeEvery) // what was sent before is over
	rename(strayTAP, other)
	w.daemon.Start(t)
	rename(other, strayTAP)
	p.stray.Store(true)
}

// none fails the test if a probe has arrived.
func (p *probes) none(t *testing.T, during string) {
	t.Helper()
	for _, pair := range p.pairs {
		if n := pair.arrived(); n > 0 {
			t.Fatalf("%s: %d probes from %s arrived at %s", during, n, pair.from, pair.to)
		}
	}
}

// all waits until probes of each pair arrive, as they must without rules: else it
// would prove nothing that none did.
func (p *probes) all(t *testing.T) {
	t.Helper()
	for _, pair := range p.pairs {
		for start := time.Now(); pair.arrived() == 0; time.Sleep(probeEvery) {
			if time.Since(start) > answered {
				t.Errorf("no probe from %s arrives at %s even without rules", pair.from, pair.to)
				break
			}
		}
	}
}

// line is a TCP connection that is to live on.
type line struct {
	name string
	conn net.Conn
}

// connect opens a connection to a machine that sends back what it gets.
func (w *world) connect(t *testing.T, from, to string) *line {
	t.Helper()
	target := netip.AddrPortFrom(w.machines[to].address, w.freePort())
	var listener net.Listener
	var conn net.Conn
	var err error
	w.machines[to].Do(t, func() { listener, err = net.Listen("tcp", target.String()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		if conn, err := listener.Accept(); err == nil {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}
	}()
	w.machines[from].Do(t, func() { conn, err = net.DialTimeout("tcp", target.String(), answered) })
	if err != nil {
		t.Fatalf("connect %s with %s: %v", from, to, err)
	}
	t.Cleanup(func() { conn.Close() })
	return &line{from + " to " + to, conn}
}

// echo fails the test if the connection does not work any more.
func (l *line) echo(t *testing.T, after string) {
	t.Helper()
	if err := l.conn.SetDeadline(deadline()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(l.conn, "hello"); err != nil {
		t.Fatalf("%s: the connection from %s: %v", after, l.name, err)
	}
	if _, err := io.ReadFull(l.conn, make([]byte, 5)); err != nil {
		t.Fatalf("%s: the connection from %s: %v", after, l.name, err)
	}
}

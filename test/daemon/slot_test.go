package daemon_test

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"zwrm/internal/client"
	"zwrm/internal/host/nstest"
	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// quarantine is how long a freed slot rests.
const quarantine = 30 * time.Second

// TestFreedSlot: a slot that is freed rests, over a stop and a kill of zwrmd, and
// until then the subnet is full, as zwrmd says. Then it has another owner, whom no
// packet of the old one's connections reaches, however long their peers go on: one
// outside that knows the address and port that the host translated, one outside that
// writes to the guest itself, and a VM of the same app.
func TestFreedSlot(t *testing.T) {
	for _, dataplane := range []string{"iptables", "nftables"} {
		t.Run(dataplane, func(t *testing.T) {
			t.Parallel()
			h := zwrmtest.NewHost(t)
			d := h.Start(t, zwrmtest.Settings{
				"network.firewall": `"` + dataplane + `"`, "network.bridge.enabled": "true", "network.subnet": `"172.16.0.0/29"`,
			})
			old, peer := d.Guest(t, "old", "web"), d.Guest(t, "peer", "web")
			late := newLateSenders(t, h, old, peer)
			detached := time.Now()
			d.Must(t, "detach", "old")
			if left := h.Run(t, "ip", "neigh", "show", "to", old.VM.GuestIP); left != "" {
				t.Errorf("neighbour entries are left:\n%s", left)
			}
			full(t, d)
			d.Restart(t)
			full(t, d)
			d.Kill()
			d.Start(t)
			full(t, d)

			vm := awaitSlot(t, d, "next", "other")
			if rested := time.Since(detached); rested < quarantine {
				t.Errorf("the slot was given out again after %s", rested)
			}
			if vm.Slot != old.VM.Slot {
				t.Fatalf("slot %d was given out, want %d", vm.Slot, old.VM.Slot)
			}
			next := h.Guest(t, vm)
			capture := zwrmtest.NewCapture(t, next.Namespace)
			late.await(t, 50)
			// The gateway's ping goes the same way as what came before it.
			if err := zwrmtest.Ping(t, h.Namespace, next.Address(), 10*time.Second); err != nil {
				t.Fatal(err)
			}
			fromGateway := func(p zwrmtest.Packet) bool {
				return p.Protocol == zwrmtest.ICMP && p.Src == next.Gateway() && p.DstPort == 8
			}
			capture.Await(t, "the ping", fromGateway)
			if foreign := capture.Find(func(p zwrmtest.Packet) bool { return !fromGateway(p) }); len(foreign) > 0 {
				t.Errorf("the new owner of the slot got %v", foreign)
			}
			ownConnection(t, next, late)
		})
	}
}

// full checks that no VM fits, and that the answer says why and until when.
func full(t *testing.T, d *zwrmtest.Daemon) {
	t.Helper()
	r := d.Zwrm(t, "attach", "more", "--app", "web")
	if r.Status != 1 {
		t.Errorf("zwrm attach: exit status %d, want 1: %s%s", r.Status, r.Stdout, r.Stderr)
	}
	contains(t, "zwrm attach", r.Stderr, "1 more VMs do not fit: 0 of the subnet's blocks are free, 1 more in quarantine, the first for ",
		"subnet 172.16.0.0/29 holds 2 VMs in all")
	_, err := d.Client(t).Attach(t.Context(), wire.Attach{Name: "more", App: "web"})
	var problem *client.Problem
	if !errors.As(err, &problem) || problem.Code != "exhausted" || problem.Status != http.StatusConflict || problem.Hint == "" {
		out, _ := json.Marshal(problem)
		t.Errorf("the API answers %v %s", err, out)
	}
	contains(t, "metrics", d.Metrics(t), `zwrm_slots{state="quarantined"} 1`, `zwrm_slots{state="free"} 0`, `zwrm_slots{state="used"} 1`)
}

// awaitSlot attaches as soon as the quarantine lets it.
func awaitSlot(t *testing.T, d *zwrmtest.Daemon, name, app string) wire.VM {
	t.Helper()
	client, end := d.Client(t), time.Now().Add(3*quarantine)
	for {
		vm, err := client.Attach(t.Context(), wire.Attach{Name: name, App: app})
		if err == nil {
			return vm
		}
		if time.Now().After(end) {
			t.Fatalf("no slot after %s: %v", 3*quarantine, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// The ports of the old guest's connections.
const (
	oldPort     = 4000 // with outside
	outsidePort = 5000
	oldPeerPort = 4001 // with the VM of the same app
	peerPort    = 5001
)

// lateSenders are the peers of the old guest's connections, which go on sending.
type lateSenders struct {
	outside *net.UDPConn
	seen    netip.AddrPort // the old guest's connection as outside sees it
	flows   []*lateFlow
}

type lateFlow struct {
	name string
	sent atomic.Int64
}

// newLateSenders makes connections of the old guest, which both sides use, and has
// the other sides send until the test ends.
func newLateSenders(t *testing.T, h *zwrmtest.Host, old, peer *zwrmtest.Guest) *lateSenders {
	t.Helper()
	l := &lateSenders{outside: listenUDP(t, h.Outside, outsidePort)}
	mine, withPeer := listenUDP(t, old.Namespace, oldPort), listenUDP(t, old.Namespace, oldPeerPort)
	peerConn := listenUDP(t, peer.Namespace, peerPort)
	l.seen = exchange(t, mine, l.outside, netip.AddrPortFrom(netip.MustParseAddr(zwrmtest.OutsideAddress), outsidePort))
	if l.seen.Addr().String() != zwrmtest.HostAddress {
		t.Fatalf("outside sees the guest as %s, so this tests no translation", l.seen)
	}
	exchange(t, peerConn, withPeer, netip.AddrPortFrom(old.Address(), oldPeerPort))

	listener, err := net.Listener(nil), error(nil)
	h.Outside.Do(t, func() { listener, err = net.Listen("tcp4", zwrmtest.OutsideAddress+":80") })
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	stream, err := old.Dial("tcp4", listener.Addr().String())
	must(t, err)
	t.Cleanup(func() { stream.Close() })
	accepted, err := listener.Accept()
	must(t, err)
	t.Cleanup(func() { accepted.Close() })

	var senders sync.WaitGroup
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop); senders.Wait() })
	keep := func(name string, send func()) {
		f := &lateFlow{name: name}
		l.flows = append(l.flows, f)
		senders.Go(func() {
			for tick := time.NewTicker(10 * time.Millisecond); ; {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				send() // what nobody takes any more is an error, and what is tested here
				f.sent.Add(1)
			}
		})
	}
	late := []byte("late")
	keep("translated", func() { _, _ = l.outside.WriteToUDPAddrPort(late, l.seen) })
	keep("to the guest itself", func() { _, _ = l.outside.WriteToUDPAddrPort(late, netip.AddrPortFrom(old.Address(), oldPort)) })
	keep("of the same app", func() { _, _ = peerConn.WriteToUDPAddrPort(late, netip.AddrPortFrom(old.Address(), oldPeerPort)) })
	keep("stream", func() { _, _ = accepted.Write(late) })
	return l
}

// exchange has a datagram go from one to the other and back. It returns the address
// that the other sees.
func exchange(t *testing.T, from, to *net.UDPConn, address netip.AddrPort) netip.AddrPort {
	t.Helper()
	buf := make([]byte, 16)
	must(t, errors.Join(from.SetReadDeadline(time.Now().Add(10*time.Second)), to.SetReadDeadline(time.Now().Add(10*time.Second))))
	_, err := from.WriteToUDPAddrPort([]byte("there"), address)
	must(t, err)
	n, seen, err := to.ReadFromUDPAddrPort(buf)
	must(t, err)
	if string(buf[:n]) != "there" {
		t.Fatalf("%q came first", buf[:n])
	}
	_, err = to.WriteToUDPAddrPort([]byte("back"), seen)
	must(t, err)
	if n, _, err = from.ReadFromUDPAddrPort(buf); err != nil || string(buf[:n]) != "back" {
		t.Fatalf("%q came back, %v", buf[:n], err)
	}
	return seen
}

func listenUDP(t *testing.T, ns *nstest.Namespace, port int) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	var err error
	ns.Do(t, func() { conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port}) })
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// await returns when each peer has sent so many packets more.
func (l *lateSenders) await(t *testing.T, more int64) {
	t.Helper()
	for _, f := range l.flows {
		want, end := f.sent.Load()+more, time.Now().Add(time.Minute)
		for f.sent.Load() < want {
			if time.Now().After(end) {
				t.Fatalf("%s: the late sender has stopped", f.name)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// ownConnection: the new owner may use the very ports of the old one's connection,
// with the same peer. It is a connection of its own, translated as any other.
func ownConnection(t *testing.T, next *zwrmtest.Guest, late *lateSenders) {
	t.Helper()
	mine := listenUDP(t, next.Namespace, oldPort)
	_, err := mine.WriteToUDPAddrPort([]byte("mine"), netip.AddrPortFrom(netip.MustParseAddr(zwrmtest.OutsideAddress), outsidePort))
	must(t, err)
	must(t, late.outside.SetReadDeadline(time.Now().Add(10*time.Second)))
	buf := make([]byte, 16)
	for {
		n, from, err := late.outside.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Errorf("nothing of the new owner's connection comes out: %v", err)
			return
		}
		if string(buf[:n]) != "mine" {
			continue
		}
		if from.Addr().String() != zwrmtest.HostAddress {
			t.Errorf("outside sees the new owner's connection come from %s, want %s", from, zwrmtest.HostAddress)
		}
		return
	}
}

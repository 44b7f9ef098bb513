package host_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"zwrm/internal/firewall/trace"
	"zwrm/internal/host"
	"zwrm/internal/host/nstest"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// properties are rules that ask for all that a rule can find out about how a packet
// came in. Each counts.
const properties = `
table inet probe {
	chain prerouting {
		type filter hook prerouting priority -300
		meta l4proto != udp return
		udp dport != 9 return
		counter comment "seen"
		iifname "zvm1" counter comment "name"
		meta iif "zvm1" counter comment "index"
		meta iiftype ether counter comment "type"
		iifgroup 0x5a000007 counter comment "group"
		meta pkttype host counter comment "to the host"
		meta pkttype broadcast counter comment "to everybody"
		meta pkttype multicast counter comment "to a group"
		ether saddr 02:5a:ac:10:00:06 counter comment "source MAC"
		ether daddr 02:5a:ff:ff:ff:fe counter comment "destination MAC"
		ether type ip counter comment "Ethernet type"
		fib saddr . iif oif exists counter comment "routes back"
		fib daddr . iif type local counter comment "to an address of the link"
		meta length 28 counter comment "length"
		meta mark 0 counter comment "mark"
		meta priority 0 counter comment "priority"
		meta secpath exists counter comment "decrypted"
	}
	chain tracked {
		type filter hook prerouting priority -100
		meta l4proto != udp return
		udp dport != 9 return
		ct state new counter comment "new"
		ct state invalid counter comment "invalid"
	}
	chain input {
		type filter hook input priority 0
		udp dport 9 iifname "zvm1" counter comment "input"
	}
	chain forward {
		type filter hook forward priority 0
		udp dport 9 iifname "zvm1" oifname "zvm2" counter comment "forward"
	}
}
`

// matches are the same in the words of iptables.
const matches = `*raw
-A PREROUTING -p udp --dport 9 -m mac --mac-source 02:5a:ac:10:00:06 -m comment --comment "xt mac"
-A PREROUTING -p udp --dport 9 -m pkttype --pkt-type unicast -m comment --comment "xt pkttype"
-A PREROUTING -p udp --dport 9 -m rpfilter -m comment --comment "xt rpfilter"
-A PREROUTING -p udp --dport 9 -m devgroup --src-group 0x5a000000/0xff000000 -m comment --comment "xt devgroup"
COMMIT
`

// run runs a program on the namespace, as somebody else on the host does.
func run(t *testing.T, stdin string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// rules puts rules in place of all others, until the test ends.
func rules(t *testing.T, nft, xtables string) {
	t.Helper()
	run(t, "flush ruleset\n"+nft, "nft", "-f", "-")
	run(t, xtables, "iptables-nft-restore", "--noflush")
	t.Cleanup(func() {
		if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
			t.Errorf("nft flush ruleset: %v\n%s", err, out)
		}
	})
}

// counted returns the comments of the rules that matched, and how often each did.
func counted(t *testing.T) string {
	t.Helper()
	var matched []string
	text := run(t, "", "nft", "list", "table", "inet", "probe") + run(t, "", "iptables-nft-save", "-c", "-t", "raw")
	for _, form := range []string{`counter packets (\d+) bytes \d+ comment "([^"]*)"`, `\[(\d+):\d+\] -A PREROUTING .* --comment "([^"]*)"`} {
		for _, m := range regexp.MustCompile(form).FindAllStringSubmatch(text, -1) {
			if m[1] != "0" {
				matched = append(matched, m[1]+" "+m[2])
			}
		}
	}
	return strings.Join(matched, ", ")
}

// guestOn returns a guest behind a TAP of an app.
func guestOn(t *testing.T, kernel *host.Kernel, slot ipam.Slot) *nstest.Guest {
	t.Helper()
	link := tap(slot)
	if err := kernel.CreateTAP(t.Context(), link); err != nil {
		t.Fatal(err)
	}
	if err := kernel.SetGroup(t.Context(), model.AppID(7).Group(), link.Name); err != nil {
		t.Fatal(err)
	}
	guest := link.Address.Addr().Next()
	return nstest.NewGuest(t, link.Name, netip.PrefixFrom(guest, 30), link.Address.Addr(), macOf(guest))
}

func macOf(guest netip.Addr) ipam.MAC {
	a := guest.As4()
	return ipam.MAC{0x02, 0x5a, a[0], a[1], a[2], a[3]}
}

// names returns the names of all links.
func names(t *testing.T, kernel *host.Kernel) string {
	t.Helper()
	links, err := kernel.Links(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, l := range links {
		all = append(all, l.Name)
	}
	return strings.Join(all, " ")
}

// Of a frame that is injected, every rule finds out what it finds out of the same
// frame when the guest sends it.
func TestInjectedFrameIsAsSent(t *testing.T) {
	kernel, _ := open(t)
	if err := kernel.SetSysctl("net/ipv4/ip_forward", "1"); err != nil {
		t.Fatal(err)
	}
	guest := guestOn(t, kernel, 1)
	guestOn(t, kernel, 2)
	const own, gateway, other = "172.16.0.6", "172.16.0.5", "172.16.0.10"
	right, host := macOf(netip.MustParseAddr(own)), ipam.GatewayMAC()
	for _, test := range []struct {
		what         string
		source, dest string
		from, to     ipam.MAC
		matched      string // how many rules do, and one of them
	}{
		{"to the gateway", own, gateway, right, host, `1 input`},
		{"to another guest", own, other, right, host, `1 forward`},
		{"from another's address", other, gateway, right, host, `1 seen`},
		{"from another's Ethernet address", own, gateway, macOf(netip.MustParseAddr(other)), host, `1 input`},
		{"to everybody", own, gateway, right, ipam.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, `1 to everybody`},
		{"to a group", own, gateway, right, ipam.MAC{0x01, 0x00, 0x5e, 0, 0, 1}, `1 to a group`},
		{"to another host's Ethernet address", own, gateway, right, ipam.MAC{2, 0, 0, 0, 0, 9}, ``},
		{"to nowhere", own, "198.51.100.1", right, host, `1 new`},
		{"from this host", "127.0.0.1", gateway, right, host, `1 seen`},
	} {
		t.Run(test.what, func(t *testing.T) {
			packet := trace.Packet{
				Source: netip.MustParseAddr(test.source), Dest: netip.MustParseAddr(test.dest),
				Service: model.Service{Protocol: model.UDP, Port: 9}, Port: 50000, ID: 1,
			}
			rules(t, properties, matches)
			if err := guest.Send(packet.Frame(test.from, test.to)); err != nil {
				t.Fatal(err)
			}
			sent := counted(t)
			if !strings.Contains(", "+sent+",", ", "+test.matched+",") {
				t.Errorf("what was sent matched %s, and not %q", sent, test.matched)
			}
			packet.Port++ // another connection
			before := names(t, kernel)
			rules(t, properties, matches)
			if err := kernel.Inject(t.Context(), "zvm1", packet.Frame(test.from, test.to)); err != nil {
				t.Fatal(err)
			}
			if injected := counted(t); injected != sent {
				t.Errorf("what was sent matched\n%s, and injected\n%s", sent, injected)
			}
			if after := names(t, kernel); after != before {
				t.Errorf("links were %s and are %s", before, after)
			}
		})
	}
}

// What comes from outside is injected by the interface to the internet.
func TestInjectByInterface(t *testing.T) {
	kernel, _ := open(t)
	var here *nstest.Namespace
	outside := nstest.New(t)
	nstest.Veth(t, nil, "eth0", outside, "eth0")
	here.Address(t, "eth0", netip.MustParsePrefix("192.0.2.1/24"))
	rules(t, `table inet probe {
	chain input {
		type filter hook input priority 0
		iifname "eth0" ip saddr 192.0.2.2 icmp type echo-request meta pkttype host counter comment "ping"
	}
}`, "")
	links, err := kernel.Links(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Name != "eth0" {
			continue
		}
		packet := trace.NewPacket(netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1"), model.Service{})
		if err := kernel.Inject(t.Context(), "eth0", packet.Frame(ipam.MAC{2, 0, 0, 0, 0, 9}, l.MAC)); err != nil {
			t.Error(err)
		}
	}
	if got := counted(t); got != "1 ping" {
		t.Errorf("the rules matched %q", got)
	}
}

func TestInjectRefused(t *testing.T) {
	kernel, _ := open(t)
	if err := kernel.CreateTAP(t.Context(), tap(1)); err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, 60)
	ended, end := context.WithCancel(t.Context())
	end()
	for _, test := range []struct {
		what, device string
		ctx          context.Context
		frame        []byte
		want         error
		says         string
	}{
		{"no such link", "zvm9", t.Context(), frame, host.ErrNoLink, `"zvm9"`},
		{"a TAP that no VM holds", "zvm1", t.Context(), frame, host.ErrNoCarrier, `"zvm1"`},
		{"given up", "zvm1", ended, frame, context.Canceled, `"zvm1"`},
		{"no frame", "zvm1", t.Context(), frame[:13], nil, "13 bytes"},
	} {
		err := kernel.Inject(test.ctx, test.device, test.frame)
		if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: error is %v", test.what, err)
		}
	}
	if got := names(t, kernel); got != "lo zvm1" {
		t.Errorf("links are %s", got)
	}
}

func TestInjectAtTheSameTime(t *testing.T) {
	kernel, _ := open(t)
	guestOn(t, kernel, 1)
	rules(t, properties, "")
	own, gateway := netip.MustParseAddr("172.16.0.6"), netip.MustParseAddr("172.16.0.5")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			packet := trace.NewPacket(own, gateway, model.Service{Protocol: model.UDP, Port: 9})
			if err := kernel.Inject(t.Context(), "zvm1", packet.Frame(macOf(own), ipam.GatewayMAC())); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := counted(t); !strings.HasPrefix(got, "8 seen, 8 name,") {
		t.Errorf("the rules matched %s", got)
	}
	if got := names(t, kernel); got != "lo zvm1" {
		t.Errorf("links are %s", got)
	}
}

// The TAP that a frame enters by says nothing by itself, and is nobody's that the
// rules know.
func TestInjectBringsNothingElse(t *testing.T) {
	kernel, _ := open(t)
	guestOn(t, kernel, 1)
	rules(t, `table inet probe {
	chain prerouting {
		type filter hook prerouting priority -500
		iifname "zwrm-trace*" counter comment "received"
	}
	chain output {
		type filter hook output priority -500
		oifname "zwrm-trace*" counter comment "sent"
	}
}`, "")
	own, gateway := netip.MustParseAddr("172.16.0.6"), netip.MustParseAddr("172.16.0.5")
	for range 3 {
		if err := kernel.Inject(t.Context(), "zvm1", trace.NewPacket(own, gateway, model.Service{}).Frame(macOf(own), ipam.GatewayMAC())); err != nil {
			t.Fatal(err)
		}
	}
	if got := counted(t); got != "" {
		t.Errorf("the rules matched %s", got)
	}
}

// injectorEnv makes TestInjector be a process that injects until it is killed.
const injectorEnv = "ZWRM_HOST_TEST_INJECTOR"

func TestInjector(t *testing.T) {
	if os.Getenv(injectorEnv) == "" {
		return
	}
	kernel, err := host.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	own, gateway := netip.MustParseAddr("172.16.0.6"), netip.MustParseAddr("172.16.0.5")
	for n := 0; ; n++ {
		fmt.Println("made", n)
		if err := kernel.Inject(t.Context(), "zvm1", trace.NewPacket(own, gateway, model.Service{}).Frame(macOf(own), ipam.GatewayMAC())); err != nil {
			t.Fatal(err)
		}
	}
}

// A process that is killed while it injects leaves nothing.
func TestKilledWhileInjecting(t *testing.T) {
	kernel, _ := open(t)
	guestOn(t, kernel, 1)
	for n := range 10 {
		killAfter(t, "TestInjector", injectorEnv, n+1)
		if got := names(t, kernel); got != "lo zvm1" {
			t.Fatalf("links are %s", got)
		}
	}
}

// Send is one of the host's own: its rules and its routes are asked.
func TestSend(t *testing.T) {
	kernel, _ := open(t)
	guest := guestOn(t, kernel, 1)
	inbox := guest.ListenPacket("udp4", "172.16.0.6:9")
	gateway, own := netip.MustParseAddr("172.16.0.5"), netip.MustParseAddr("172.16.0.6")
	packet := trace.NewPacket(gateway, own, model.Service{Protocol: model.UDP, Port: 9})
	if err := kernel.Send(t.Context(), packet.Bytes()); err != nil {
		t.Fatal(err)
	}
	if _, from, err := inbox.ReadFrom(make([]byte, 1)); err != nil || from.String() != netip.AddrPortFrom(gateway, packet.Port).String() {
		t.Errorf("the guest got a packet from %v, error %v", from, err)
	}
	rules(t, `table ip probe {
	chain output {
		type filter hook output priority 0
		udp dport 9 counter drop comment "output"
	}
}`, "")
	if err := kernel.Send(t.Context(), packet.Bytes()); err != nil {
		t.Errorf("a packet that a rule drops is an error: %v", err)
	}
	if text := run(t, "", "nft", "list", "ruleset"); !strings.Contains(text, "counter packets 1 ") {
		t.Errorf("the rules are\n%s", text)
	}
	nowhere := trace.NewPacket(gateway, netip.MustParseAddr("198.51.100.1"), model.Service{})
	if err := kernel.Send(t.Context(), nowhere.Bytes()); !errors.Is(err, unix.ENETUNREACH) || !strings.Contains(err.Error(), "198.51.100.1") {
		t.Errorf("error is %v", err)
	}
	if err := kernel.Send(t.Context(), []byte{0x60, 19: 0}); err == nil {
		t.Error("IPv6 was sent")
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := kernel.Send(ended, packet.Bytes()); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

package flow_test

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"zwrm/internal/config"
	"zwrm/internal/host/nstest"
	"zwrm/test/zwrmtest"
)

const (
	// dropped is how long the answer of a flow that must not pass is waited for.
	dropped = 400 * time.Millisecond
	// answered is how long that of a flow that must pass is waited for at most.
	answered = 10 * time.Second
)

func TestMain(m *testing.M) { zwrmtest.Main(m) }

// services are what every machine serves.
func services() []string { return []string{"tcp/80", "tcp/8080", "udp/53", "udp/9000"} }

// onBoth runs a test with each dataplane.
func onBoth(t *testing.T, test func(t *testing.T, dataplane config.Dataplane)) {
	t.Helper()
	for _, dataplane := range []config.Dataplane{config.Iptables, config.Nftables} {
		t.Run(string(dataplane), func(t *testing.T) {
			t.Parallel()
			test(t, dataplane)
		})
	}
}

// world is a host with three VMs and the networks around it.
type world struct {
	*zwrmtest.Host
	dataplane config.Dataplane
	daemon    *zwrmtest.Daemon
	machines  map[string]machine
	ports     atomic.Uint32 // that freePort has given out
}

// machine is a name in the table of flows: who asks, and who is asked.
type machine struct {
	*nstest.Namespace
	address netip.Addr
	service *zwrmtest.Service // nil: an address that is only asked
	capture *zwrmtest.Capture // nil: the host, where packets are seen that rules drop then
}

// newWorld makes the machines of the table. prepare changes the host before zwrmd
// starts; nil: not at all.
func newWorld(t *testing.T, dataplane config.Dataplane, private bool, prepare func(h *zwrmtest.Host)) *world {
	t.Helper()
	w := &world{Host: zwrmtest.NewHost(t), dataplane: dataplane, machines: map[string]machine{}}
	lan := nstest.New(t)
	nstest.Veth(t, w.Namespace, "lan0", lan, "eth0")
	w.Set(t, "net/ipv6/conf/lan0/disable_ipv6", "1") // neighbour discovery would come into its own after a while
	w.Address(t, "lan0", netip.MustParsePrefix("198.51.100.1/24"))
	lan.Address(t, "eth0", netip.MustParsePrefix("198.51.100.2/24"))
	lan.Route(t, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("198.51.100.1"))
	w.Outside.Route(t, netip.MustParsePrefix("198.51.100.0/24"), netip.MustParseAddr(zwrmtest.HostAddress))
	if prepare != nil {
		prepare(w.Host)
	}
	w.daemon = w.Start(t, settings(dataplane, private))
	for _, name := range []string{"web-0", "web-1", "db-0"} {
		w.guest(t, name)
	}
	w.add(t, "internet", w.Outside, zwrmtest.OutsideAddress)
	w.add(t, "lan", lan, "198.51.100.2")
	w.host(t)
	for name, address := range map[string]string{
		"metadata":      "169.254.169.254",
		"denied":        "203.0.113.9",
		"beside-denied": "203.0.113.200",
		"nobody":        "172.16.200.2",
	} {
		w.Outside.Address(t, "lo", netip.MustParsePrefix(address+"/32"))
		internet := w.machines["internet"]
		internet.address = netip.MustParseAddr(address)
		w.machines[name] = internet
	}
	return w
}

func settings(dataplane config.Dataplane, private bool) zwrmtest.Settings {
	return zwrmtest.Settings{
		"network.firewall":       strconv.Quote(string(dataplane)),
		"network.bridge.enabled": strconv.FormatBool(private),
		"network.host_access":    `["tcp/8080", "udp/53"]`,
		"network.egress_deny":    `["169.254.0.0/16", "203.0.113.0/25"]`,
	}
}

// guest adds a guest, which is of the app that its name begins with.
func (w *world) guest(t *testing.T, name string) *zwrmtest.Guest {
	t.Helper()
	app, _, _ := strings.Cut(name, "-")
	guest := w.daemon.Guest(t, name, app)
	w.add(t, name, guest.Namespace, guest.Address().String())
	w.machines[name+"-gateway"] = machine{address: guest.Gateway()}
	return guest
}

// add gives a machine its services and watches what reaches it.
func (w *world) add(t *testing.T, name string, ns *nstest.Namespace, address string) {
	t.Helper()
	w.machines[name] = machine{ns, netip.MustParseAddr(address), zwrmtest.Serve(t, ns, services()...), zwrmtest.NewCapture(t, ns)}
}

// host adds the host, under each of its addresses.
func (w *world) host(t *testing.T) {
	t.Helper()
	host := machine{Namespace: w.Namespace, service: zwrmtest.Serve(t, w.Namespace, services()...)}
	for name, address := range map[string]string{
		"host":          zwrmtest.HostAddress, // as the sender
		"host-eth0":     zwrmtest.HostAddress,
		"host-lan0":     "198.51.100.1",
		"host-zwrmd0":   "10.0.0.1",
		"own-gateway":   "0.0.0.0", // another for each guest
		"web-1-gateway": w.machines["web-1-gateway"].address.String(),
		"db-0-gateway":  w.machines["db-0-gateway"].address.String(),
	} {
		host.address = netip.MustParseAddr(address)
		w.machines[name] = host
	}
}

// target returns the machine that the flow goes to.
func (w *world) target(f flow) machine {
	to := w.machines[f.to]
	if f.to == "own-gateway" {
		to.address = w.machines[f.from+"-gateway"].address
	}
	return to
}

// try tries a flow. The error is that of the sender: no answer in time.
func (w *world) try(t *testing.T, f flow, within time.Duration) (seen netip.Addr, err error) {
	t.Helper()
	switch f.state {
	case established:
		return w.tryEstablished(t, f, within)
	case related:
		return netip.Addr{}, w.tryRelated(t, f, within)
	}
	from, to := w.machines[f.from], w.target(f)
	if f.protocol == "icmp" {
		return netip.Addr{}, zwrmtest.Ping(t, from.Namespace, to.address, within)
	}
	network, port, _ := strings.Cut(f.protocol, "/")
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatalf("%s: %v", f, err)
	}
	return zwrmtest.Ask(t, from.Namespace, network, netip.AddrPortFrom(to.address, uint16(number)), within)
}

// arrived says what of a flow reached its target, whether it was answered or not;
// empty: nothing. Whether a ping reached the host can only be told by its answer.
func (w *world) arrived(f flow) string {
	from, to := w.machines[f.from].address, w.target(f)
	masqueraded := netip.MustParseAddr(zwrmtest.HostAddress)
	if to.capture == nil {
		if to.service.Saw(f.protocol, from, to.address) {
			return fmt.Sprintf("the service on %s", f.protocol)
		}
		return ""
	}
	packets := to.capture.Find(func(p zwrmtest.Packet) bool {
		return (p.Src == from || p.Src == masqueraded) && p.Dst == to.address && f.carries(p)
	})
	if len(packets) == 0 {
		return ""
	}
	return packets[0].String()
}

// forget forgets what has arrived so far: what passed in one phase tells nothing about
// the next.
func (w *world) forget() {
	for _, m := range w.machines {
		if m.service != nil {
			m.service.Forget()
		}
		if m.capture != nil {
			m.capture.Forget()
		}
	}
}

// carries reports whether the packet is one of the flow's protocol that asks
// something: to its port, or an echo request.
func (f flow) carries(p zwrmtest.Packet) bool {
	const echoRequest, unreachable = 8, 3
	network, port, _ := strings.Cut(f.protocol, "/")
	protocol := map[string]int{"icmp": zwrmtest.ICMP, "tcp": zwrmtest.TCP, "udp": zwrmtest.UDP}[network]
	switch {
	case f.state == related:
		port = strconv.Itoa(unreachable)
	case port == "":
		port = strconv.Itoa(echoRequest)
	}
	return p.Protocol == protocol && strconv.Itoa(int(p.DstPort)) == port
}

// removeRules kills zwrmd, so that nothing mends, and takes away every rule that
// drops. What is left is the host without ZWRM's protection.
func (w *world) removeRules(t *testing.T) {
	t.Helper()
	w.daemon.Kill()
	commands := []string{
		"iptables -t raw -F ZWRM-RAW",
		"iptables -F ZWRM-FORWARD",
		"iptables -F ZWRM-INPUT",
		"iptables -F ZWRM-OUTPUT",
		"ip6tables -t raw -F ZWRM-RAW",
		"ip6tables -F ZWRM-FORWARD",
		"ip6tables -F ZWRM-OUTPUT",
	}
	if w.dataplane == config.Nftables {
		commands = nil
		for _, chain := range []string{"prerouting", "forward", "input", "output"} {
			commands = append(commands, "nft flush chain inet zwrm "+chain)
		}
	}
	for _, command := range commands {
		words := strings.Fields(command)
		w.Run(t, words[0], words[1:]...)
	}
}

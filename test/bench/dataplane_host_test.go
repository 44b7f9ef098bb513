package bench_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/iptables"
	"zwrm/internal/firewall/nftables"
	"zwrm/internal/host"
	"zwrm/internal/host/netlink"
	"zwrm/internal/host/nstest"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// vmsPerApp is how many VMs an app has.
const vmsPerApp = 10

// Ports of the flow of each pair that is there all the time.
const (
	clientPort = 4000
	serverPort = 5000
)

// rules says what a host has in its tables.
type rules string

// The rules that hosts are compared with. Hosts that differ in nothing show how well
// this measures; what any host with masquerading pays is a part of what ours cost.
const (
	plain      rules = "plain" // no table, and so no connection tracking
	plainAgain rules = "plain-again"
	masquerade rules = "masquerade" // the one rule that gives VMs the internet
	onNftables rules = "nftables"
	onIptables rules = "iptables"
)

func allRules() []rules { return []rules{plain, plainAgain, masquerade, onNftables, onIptables} }

// router is a host with VMs: a namespace of its own with their TAPs and rules.
type router struct {
	rules  rules
	ns     *nstest.Namespace
	kernel *host.Kernel
	pairs  []pair
	buf    []byte
}

// pair is two VMs of one app: their TAPs as VMMs open them, and their addresses.
type pair struct {
	taps   [2]int // descriptors
	guests [2]netip.Addr
}

func (p pair) client(port uint16) netip.AddrPort { return netip.AddrPortFrom(p.guests[0], port) }
func (p pair) server(port uint16) netip.AddrPort { return netip.AddrPortFrom(p.guests[1], port) }

func subnet() netip.Prefix { return netip.MustParsePrefix("172.16.0.0/16") }

// policy returns what zwrmd gives its firewall with so many apps.
func policy(apps int) firewall.Policy {
	p := firewall.Policy{
		Subnet: subnet(), External: "eth0", Private: true,
		EgressDeny: []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")},
	}
	for i := range apps {
		p.Apps = append(p.Apps, app(i))
	}
	return p
}

func app(i int) firewall.App {
	return firewall.App{Name: model.Name(fmt.Sprintf("app%d", i)), Group: model.AppID(i + 1).Group()}
}

// newRouter makes a host with so many apps, and opens the TAPs of two VMs of as many
// of them as pairs, which are spread over all.
func newRouter(t testing.TB, with rules, apps, pairs int) *router {
	t.Helper()
	r := &router{rules: with, ns: nstest.New(t), buf: make([]byte, 2048)}
	r.ns.Set(t, "net/ipv4/ip_forward", "1")
	r.ns.Set(t, "net/ipv6/conf/default/disable_ipv6", "1")
	layout, err := ipam.NewLayout(subnet())
	must(t, err)
	r.ns.Do(t, func() {
		var err error
		r.kernel, err = host.Open()
		must(t, err)
		t.Cleanup(func() { must(t, r.kernel.Close()) })
		r.makeTAPs(t, layout, apps)
		r.write(t, apps)
		for i := range pairs {
			first := ipam.Slot((2*i + 1) * apps / (2 * pairs) * vmsPerApp)
			r.pairs = append(r.pairs, r.open(t, layout, first, first+vmsPerApp-1))
		}
	})
	r.settle(t)
	return r
}

func (r *router) makeTAPs(t testing.TB, layout ipam.Layout, apps int) {
	ctx := t.Context()
	for i := range apps * vmsPerApp {
		slot := ipam.Slot(i)
		tap := host.TAP{Name: slot.TAP(), MAC: ipam.GatewayMAC(), MTU: 1500, Address: netip.PrefixFrom(layout.Gateway(slot), 30)}
		must(t, r.kernel.CreateTAP(ctx, tap))
		must(t, r.kernel.SetGroup(ctx, app(i/vmsPerApp).Group, tap.Name))
	}
}

// write gives the host its rules.
func (r *router) write(t testing.TB, apps int) {
	switch r.rules {
	case masquerade:
		out, err := exec.Command("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", subnet().String(), "-o", "eth0", "-j", "MASQUERADE").CombinedOutput()
		if err != nil {
			t.Fatalf("iptables: %v: %s", err, out)
		}
	case onNftables, onIptables:
		must(t, openDataplane(t, r.rules).Apply(t.Context(), firewall.Build(policy(apps))))
	}
}

// open opens the TAPs of two VMs, and tells the host their Ethernet addresses, so that
// it does not ask for them in the middle.
func (r *router) open(t testing.TB, layout ipam.Layout, slots ...ipam.Slot) (p pair) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	must(t, err)
	for i, slot := range slots {
		p.guests[i] = layout.Guest(slot)
		p.taps[i] = openTAP(t, slot.TAP())
		must(t, conn.Do(neighbour(t, slot.TAP(), p.guests[i], layout.GuestMAC(slot))))
	}
	must(t, conn.Close())
	return p
}

// openTAP opens a TAP in the namespace of the calling thread. The descriptor is none
// of Go's poller, which every frame would wake.
func openTAP(t testing.TB, name string) int {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	request, err := unix.NewIfreq(name)
	must(t, err)
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	must(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, request))
	return fd
}

// neighbour returns the request for a lasting neighbour entry.
func neighbour(t testing.TB, link string, address netip.Addr, mac ipam.MAC) *netlink.Request {
	index, err := indexOf(link)
	must(t, err)
	fixed := [unix.SizeofNdMsg]byte{unix.AF_INET}
	binary.NativeEndian.PutUint32(fixed[4:], uint32(index))
	binary.NativeEndian.PutUint16(fixed[8:], unix.NUD_PERMANENT)
	request := netlink.NewRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, fixed[:])
	request.Bytes(unix.NDA_DST, address.AsSlice())
	request.Bytes(unix.NDA_LLADDR, mac[:])
	return request
}

// settle waits until every pair can speak: the kernel starts a TAP's queue a moment
// after the TAP was opened. It makes the flow of each pair an established one.
func (r *router) settle(t testing.TB) {
	t.Helper()
	for i := range r.pairs {
		for try := 0; ; try++ {
			err := r.carry(greeting(r.pairs, i))
			if err == nil {
				break
			}
			if try == 500 {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// hop is a frame on its way through the host.
type hop struct {
	pair  int
	back  bool // to the first VM of the pair
	frame []byte
}

// carry takes frames through the host, one at a time: the kernel has routed a frame
// when the system call returns that wrote it. A frame that does not arrive is an error.
func (r *router) carry(hops []hop) error {
	for _, h := range hops {
		taps := r.pairs[h.pair].taps
		from, to := taps[0], taps[1]
		if h.back {
			from, to = to, from
		}
		if _, err := unix.Write(from, h.frame); err != nil {
			return fmt.Errorf("%s: send frame: %w", r.rules, err)
		}
		n, err := unix.Read(to, r.buf)
		if err != nil {
			return fmt.Errorf("%s: frame of pair %d did not arrive: %w", r.rules, h.pair, err)
		}
		if n != len(h.frame) {
			return fmt.Errorf("%s: a frame of %d bytes arrived instead of one of %d", r.rules, n, len(h.frame))
		}
	}
	return nil
}

// dataplane is what zwrmd knows of either.
type dataplane interface {
	Version() string
	Apply(ctx context.Context, want firewall.Ruleset) error
	AddApps(ctx context.Context, apps ...firewall.App) error
	RemoveApps(ctx context.Context, apps ...firewall.App) error
	Diff(ctx context.Context, want firewall.Ruleset) ([]firewall.Difference, error)
}

// openDataplane opens a dataplane in the namespace of the calling thread.
func openDataplane(t testing.TB, which rules) dataplane {
	t.Helper()
	if which == onIptables {
		d, err := iptables.Open(t.Context())
		must(t, err)
		return d
	}
	d, err := nftables.Open(t.Context())
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

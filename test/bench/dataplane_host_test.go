package bench_test

import (
	"context"
	"encoding/binary"
	"errors"
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
	rules rules
	ns    *nstest.Namespace
	pairs []pair
	buf   []byte
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

// newRouter makes a host with so many apps. Two VMs each of as many of them as pairs,
// spread over all, have a TAP. The others are there by their rules and routes only:
// nothing that packets of these meet looks at other TAPs, and the kernel takes a minute
// to remove a namespace with 16,000, in which no other can be made.
func newRouter(t testing.TB, with rules, apps, pairs int) *router {
	t.Helper()
	r := &router{rules: with, ns: nstest.New(t), buf: make([]byte, 2048)}
	r.ns.Set(t, "net/ipv4/ip_forward", "1")
	r.ns.Set(t, "net/ipv6/conf/default/disable_ipv6", "1")
	layout, err := ipam.NewLayout(subnet())
	must(t, err)
	r.ns.Do(t, func() {
		kernel, err := host.Open(nil)
		must(t, err)
		conn, err := netlink.Dial(unix.NETLINK_ROUTE)
		must(t, err)
		must(t, conn.Do(blackholes(layout, apps*vmsPerApp)...))
		for i := range pairs {
			app := (2*i + 1) * apps / (2 * pairs)
			var p pair
			for side, slot := range []ipam.Slot{ipam.Slot(app * vmsPerApp), ipam.Slot(app*vmsPerApp + vmsPerApp - 1)} {
				p.guests[side] = layout.Guest(slot)
				p.taps[side] = newTAP(t, kernel, conn, layout, slot)
			}
			r.pairs = append(r.pairs, p)
		}
		must(t, errors.Join(kernel.Close(), conn.Close()))
		r.write(t, apps)
	})
	r.settle(t)
	return r
}

// blackholes returns requests for routes to the blocks of all VMs. Where there is a TAP,
// its own is better.
func blackholes(layout ipam.Layout, vms int) []*netlink.Request {
	fixed := [unix.SizeofRtMsg]byte{
		unix.AF_INET, 30, 0, 0,
		unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_BLACKHOLE,
	}
	var requests []*netlink.Request
	for slot := range ipam.Slot(vms) {
		request := netlink.NewRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, fixed[:])
		request.Bytes(unix.RTA_DST, layout.Block(slot).Addr().AsSlice())
		request.Uint32(unix.RTA_PRIORITY, 1)
		requests = append(requests, request)
	}
	return requests
}

// newTAP makes a VM's TAP as zwrmd does, and opens it as a VMM does. It tells the host
// the VM's Ethernet address, so that the host does not ask for it in the middle.
func newTAP(t testing.TB, kernel *host.Kernel, conn *netlink.Conn, layout ipam.Layout, slot ipam.Slot) (fd int) {
	t.Helper()
	tap := host.TAP{Name: slot.TAP(), MAC: ipam.GatewayMAC(), MTU: 1500, Address: netip.PrefixFrom(layout.Gateway(slot), 30)}
	must(t, kernel.CreateTAP(t.Context(), tap))
	must(t, kernel.SetGroup(t.Context(), app(int(slot)/vmsPerApp).Group, tap.Name))
	must(t, conn.Do(neighbour(t, tap.Name, layout.Guest(slot), layout.GuestMAC(slot))))
	return openTAP(t, tap.Name)
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

func indexOf(name string) (int, error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(socket, unix.SIOCGIFINDEX, request); err != nil {
		return 0, err
	}
	return int(request.Uint32()), nil
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
		d, err := iptables.Open(t.Context(), nil)
		must(t, err)
		return d
	}
	d, err := nftables.Open(t.Context(), nil)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

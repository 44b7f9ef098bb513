package host_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"zwrm/internal/host"
	"zwrm/internal/host/hosttest"
	"zwrm/internal/host/netlink"
	"zwrm/internal/host/nstest"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func TestKernel(t *testing.T) {
	hosttest.Suite(t, func(t *testing.T) (hosttest.Host, hosttest.Others) {
		kernel, others := open(t)
		return kernel, others
	})
}

// open returns the kernel of the test's namespace and another hand on it. When
// the test ends, the namespace is as it was.
func open(t *testing.T) (*host.Kernel, *others) {
	t.Helper()
	kernel, err := host.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	o := &others{t: t}
	for _, socket := range []struct {
		conn     **netlink.Conn
		protocol int
	}{{&o.route, unix.NETLINK_ROUTE}, {&o.conntrack, unix.NETLINK_NETFILTER}} {
		if *socket.conn, err = netlink.Dial(socket.protocol); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		o.clean()
		if err := errors.Join(kernel.Close(), o.route.Close(), o.conntrack.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := kernel.SetSysctl("net/ipv4/ip_forward", "0"); err != nil {
		t.Fatal(err)
	}
	return kernel, o
}

// others is everybody else on the kernel. It asks the kernel past package host.
type others struct {
	t                *testing.T
	route, conntrack *netlink.Conn
	port             byte // of the last connection made
}

func (o *others) AddLink(l host.Link) error { return o.addLink(l, 0) }

// addLink makes a link; flags are more of those that a TAP is opened with.
func (o *others) addLink(l host.Link, flags uint16) error {
	if l.Kind == host.KindTAP {
		if err := addTAP(l.Name, flags); err != nil {
			return err
		}
	} else if err := o.route.Do(newLink(l.Name, string(l.Kind))); err != nil {
		return fmt.Errorf("add link %q: %w", l.Name, err)
	}
	index := o.index(l.Name)
	set := netlink.NewLink(unix.RTM_SETLINK, 0, index, 0, 0)
	set.Uint32(unix.IFLA_GROUP, uint32(l.Group))
	if l.MTU != 0 {
		set.Uint32(unix.IFLA_MTU, uint32(l.MTU))
	}
	if l.MAC != (ipam.MAC{}) {
		set.Bytes(unix.IFLA_ADDRESS, l.MAC[:])
	}
	if l.Alias != "" {
		set.Text(unix.IFLA_IFALIAS, l.Alias)
	}
	requests := []*netlink.Request{set}
	for _, address := range l.Addresses {
		requests = append(requests, netlink.NewAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, address))
	}
	if l.Up {
		requests = append(requests, netlink.NewLink(unix.RTM_SETLINK, 0, index, unix.IFF_UP, unix.IFF_UP))
	}
	if err := o.route.Do(requests...); err != nil {
		return fmt.Errorf("set link %q: %w", l.Name, err)
	}
	return nil
}

func newLink(name, kind string) *netlink.Request {
	request := netlink.NewLink(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0, 0, 0)
	request.Text(unix.IFLA_IFNAME, name)
	request.Nest(unix.IFLA_LINKINFO, func() { request.Text(unix.IFLA_INFO_KIND, kind) })
	return request
}

// addTAP makes a persistent TAP as "ip tuntap add" does.
func addTAP(name string, flags uint16) error {
	fd, err := openTAP(name, flags)
	if err != nil {
		return err
	}
	err = unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
	return errors.Join(err, unix.Close(fd))
}

func openTAP(name string, flags uint16) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("open TAP %q: %w", name, err), unix.Close(fd))
	}
	return fd, nil
}

func (o *others) OpenTAP(name string) (io.Closer, error) {
	fd, err := openTAP(name, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (o *others) RemoveLink(name string) bool {
	request := netlink.NewLink(unix.RTM_DELLINK, 0, 0, 0, 0)
	request.Text(unix.IFLA_IFNAME, name)
	return o.route.Do(request) == nil
}

func (o *others) RemoveRoute(device string, dest netip.Prefix) error {
	fixed := [unix.SizeofRtMsg]byte{0: unix.AF_INET, 1: byte(dest.Bits()), 4: unix.RT_TABLE_MAIN, 6: unix.RT_SCOPE_NOWHERE} // of any scope
	if dest.IsSingleIP() {
		fixed[4] = unix.RT_TABLE_LOCAL
	}
	request := netlink.NewRequest(unix.RTM_DELROUTE, 0, fixed[:])
	request.Bytes(unix.RTA_DST, dest.Addr().AsSlice())
	request.Uint32(unix.RTA_OIF, uint32(o.index(device)))
	return o.route.Do(request)
}

func (o *others) AddRoute(r host.Route) error {
	fixed := [unix.SizeofRtMsg]byte{
		unix.AF_INET, byte(r.Dest.Bits()), 0, 0, unix.RT_TABLE_UNSPEC, unix.RTPROT_STATIC, unix.RT_SCOPE_LINK, unix.RTN_UNICAST,
	}
	request := netlink.NewRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, fixed[:])
	request.Bytes(unix.RTA_DST, r.Dest.Addr().AsSlice())
	request.Uint32(unix.RTA_OIF, uint32(o.index(r.Device)))
	request.Uint32(unix.RTA_TABLE, r.Table)
	request.Uint32(unix.RTA_PRIORITY, r.Metric)
	return o.route.Do(request)
}

func (o *others) AddNeighbour(device string, address netip.Addr) error {
	fixed := [unix.SizeofNdMsg]byte{unix.AF_INET}
	binary.NativeEndian.PutUint32(fixed[4:], uint32(o.index(device)))
	binary.NativeEndian.PutUint16(fixed[8:], unix.NUD_REACHABLE)
	request := netlink.NewRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE, fixed[:])
	request.Bytes(unix.NDA_DST, address.AsSlice())
	request.Bytes(unix.NDA_LLADDR, []byte{2, 0, 0, 0, 0, 1})
	return o.route.Do(request)
}

// The parts of linux/netfilter/nfnetlink_conntrack.h that a connection is made
// and listed by.
const (
	ctNew, ctGet, ctDelete     = 0x100, 0x101, 0x102
	ctaOrig, ctaReply, ctaTime = 1, 2, 7
	ctaIP, ctaProto            = 1, 2
	ctaSrc, ctaDst             = 1, 2
	ctaProtoNum, ctaSrcPort    = 1, 2
	ctaDstPort                 = 3
)

func conntrackRequest(kind, flags uint16) *netlink.Request {
	return netlink.NewRequest(kind, flags, []byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0})
}

func (o *others) AddFlow(f hosttest.Flow) error {
	request := conntrackRequest(ctNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	tuple := func(attribute uint16, src, dst netip.Addr, srcPort, dstPort byte) {
		request.Nest(attribute, func() {
			request.Nest(ctaIP, func() {
				request.Bytes(ctaSrc, src.AsSlice())
				request.Bytes(ctaDst, dst.AsSlice())
			})
			request.Nest(ctaProto, func() {
				request.Bytes(ctaProtoNum, []byte{unix.IPPROTO_UDP})
				request.Bytes(ctaSrcPort, []byte{0, srcPort})
				request.Bytes(ctaDstPort, []byte{0, dstPort})
			})
		})
	}
	o.port++ // no two connections may have all in common
	tuple(ctaOrig, f.Src, f.Dst, o.port, 53)
	tuple(ctaReply, f.ReplySrc, f.ReplyDst, 53, o.port)
	request.Bytes(ctaTime, []byte{0, 0, 1, 0}) // seconds
	return o.conntrack.Do(request)
}

func (o *others) Remembered() ([]string, error) {
	var lines []string
	err := o.conntrack.Query(conntrackRequest(ctGet, unix.NLM_F_DUMP), func(payload []byte) {
		var f hosttest.Flow
		for attribute, value := range netlink.Attributes(payload[4:]) {
			switch attribute {
			case ctaOrig:
				f.Src, f.Dst = addressesOf(value)
			case ctaReply:
				f.ReplySrc, f.ReplyDst = addressesOf(value)
			}
		}
		lines = append(lines, f.String())
	})
	fixed := [unix.SizeofNdMsg]byte{unix.AF_INET}
	err = errors.Join(err, o.route.Query(netlink.NewRequest(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, fixed[:]), func(payload []byte) {
		if binary.NativeEndian.Uint16(payload[8:])&unix.NUD_NOARP != 0 {
			return // the kernel's own, of lo and of multicast addresses
		}
		for attribute, value := range netlink.Attributes(payload[unix.SizeofNdMsg:]) {
			if address, _ := netip.AddrFromSlice(value); attribute == unix.NDA_DST {
				lines = append(lines, "neighbour "+address.String())
			}
		}
	}))
	slices.Sort(lines)
	return lines, err
}

func addressesOf(tuple []byte) (src, dst netip.Addr) {
	for part, value := range netlink.Attributes(tuple) {
		for attribute, value := range netlink.Attributes(value) {
			switch {
			case part == ctaIP && attribute == ctaSrc:
				src, _ = netip.AddrFromSlice(value)
			case part == ctaIP && attribute == ctaDst:
				dst, _ = netip.AddrFromSlice(value)
			}
		}
	}
	return src, dst
}

// index returns a link's index, 0 if there is none of that name.
func (o *others) index(name string) (index int) {
	request := netlink.NewLink(unix.RTM_GETLINK, 0, 0, 0, 0)
	request.Text(unix.IFLA_IFNAME, name)
	_ = o.route.Query(request, func(payload []byte) { index = int(netlink.Uint32(payload, 4)) })
	return index
}

// clean removes all but lo, all at once: by the group that every link is put in.
func (o *others) clean() {
	var requests []*netlink.Request
	err := o.route.Query(netlink.NewLink(unix.RTM_GETLINK, unix.NLM_F_DUMP, 0, 0, 0), func(payload []byte) {
		if index := int(netlink.Uint32(payload, 4)); index != 1 {
			request := netlink.NewLink(unix.RTM_SETLINK, 0, index, 0, 0)
			request.Uint32(unix.IFLA_GROUP, 99)
			requests = append(requests, request)
		}
	})
	if err = errors.Join(err, o.route.Do(requests...)); err == nil && len(requests) > 0 {
		all := netlink.NewLink(unix.RTM_DELLINK, 0, 0, 0, 0)
		all.Uint32(unix.IFLA_GROUP, 99)
		err = o.route.Do(all)
	}
	if err := errors.Join(err, o.conntrack.Do(conntrackRequest(ctDelete, 0))); err != nil {
		o.t.Errorf("clean up: %v", err)
	}
}

func tap(slot ipam.Slot) host.TAP {
	layout, err := ipam.NewLayout(netip.MustParsePrefix("172.16.0.0/16"))
	if err != nil {
		panic(err)
	}
	return host.TAP{Name: slot.TAP(), MAC: ipam.GatewayMAC(), MTU: 1500, Address: netip.PrefixFrom(layout.Gateway(slot), 30)}
}

// A TAP with several queues costs 6.6 MiB, and a VMM that opens it as ours is
// refused.
func TestCreateTAPReplacesMultiQueue(t *testing.T) {
	kernel, others := open(t)
	group := model.AppID(7).Group()
	if err := others.addLink(host.Link{Name: "zvm1", Kind: host.KindTAP, Group: group}, unix.IFF_MULTI_QUEUE); err != nil {
		t.Fatal(err)
	}
	if err := kernel.CreateTAP(t.Context(), tap(1)); err != nil {
		t.Fatal(err)
	}
	fd, err := openTAP("zvm1", unix.IFF_VNET_HDR)
	if err != nil {
		t.Fatalf("a VMM cannot open it: %v", err)
	}
	defer unix.Close(fd)
	links, err := kernel.Links(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Name == "zvm1" && l.Group != group {
			t.Errorf("its group was %s and is %s", group, l.Group)
		}
	}
}

func TestCreateTAPWhileVMMHasIt(t *testing.T) {
	kernel, _ := open(t)
	if err := kernel.CreateTAP(t.Context(), tap(1)); err != nil {
		t.Fatal(err)
	}
	fd, err := openTAP("zvm1", unix.IFF_VNET_HDR)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	moved := tap(2)
	moved.Name, moved.MTU = "zvm1", 1400
	if err := kernel.CreateTAP(t.Context(), moved); err != nil {
		t.Error(err)
	}
}

func TestCreateTAPRefusesWhatGoesWithItsHolder(t *testing.T) {
	kernel, others := open(t)
	fd, err := openTAP("zvm1", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	set := netlink.NewLink(unix.RTM_SETLINK, 0, others.index("zvm1"), 0, 0)
	set.Uint32(unix.IFLA_GROUP, uint32(model.GroupUnassigned))
	if err := others.route.Do(set); err != nil {
		t.Fatal(err)
	}
	if err := kernel.CreateTAP(t.Context(), tap(1)); err == nil || !strings.Contains(err.Error(), "holds it open") {
		t.Errorf("error is %v", err)
	}
}

// The kernel finds a link by any of its names.
func TestCreateTAPRefusesAlternativeName(t *testing.T) {
	kernel, others := open(t)
	if err := others.AddLink(host.Link{Name: "zvm2", Kind: host.KindTAP, Group: model.GroupUnassigned}); err != nil {
		t.Fatal(err)
	}
	const linkProp, propList, altName = unix.RTM_NEWLINKPROP, unix.IFLA_PROP_LIST, unix.IFLA_ALT_IFNAME
	request := netlink.NewLink(linkProp, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_APPEND, others.index("zvm2"), 0, 0)
	request.Nest(propList, func() { request.Text(altName, "zvm1") })
	if err := others.route.Do(request); err != nil {
		t.Fatal(err)
	}
	if err := kernel.CreateTAP(t.Context(), tap(1)); !errors.Is(err, host.ErrForeign) {
		t.Errorf("create: error is %v", err)
	}
	if err := kernel.DeleteLinks(t.Context(), "zvm1"); !errors.Is(err, host.ErrForeign) {
		t.Errorf("delete: error is %v", err)
	}
}

// TestUnownedTAPThatIsHeld: a TAP of an earlier ZWRM whose VMM still runs is nothing to
// mend, up or down; once the VMM is gone it is.
func TestUnownedTAPThatIsHeld(t *testing.T) {
	kernel, others := open(t)
	if err := others.AddLink(host.Link{Name: "zvm1", Kind: host.KindTAP, Group: model.GroupUnassigned}); err != nil {
		t.Fatal(err)
	}
	fd, err := openTAP("zvm1", unix.IFF_VNET_HDR)
	if err != nil {
		t.Fatal(err)
	}
	wrong := func() []string {
		t.Helper()
		if err := kernel.CreateTAP(t.Context(), tap(1)); err != nil {
			t.Error(err)
		}
		if err := kernel.SetUp(t.Context(), false, "zvm1"); err != nil {
			t.Error(err)
		}
		links, err := kernel.Links(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range links {
			if link.Name == "zvm1" {
				return link.Hardening.Wrong
			}
		}
		t.Fatal("zvm1 is gone")
		return nil
	}
	if got := wrong(); len(got) > 0 {
		t.Errorf("of the TAP that is held is wrong: %q", got)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	links, err := kernel.Links(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(links, func(l host.Link) bool { return slices.Contains(l.Hardening.Wrong, host.NotOwned) }) {
		t.Errorf("links are %+v: none is anybody's", links)
	}
	if got := wrong(); len(got) > 0 {
		t.Errorf("of the mended TAP is wrong: %q", got)
	}
}

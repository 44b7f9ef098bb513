package nstest

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
)

// vethPeer is VETH_INFO_PEER (linux/veth.h).
const vethPeer = 1

func up(conn *netlink.Conn, link string) error {
	request := netlink.NewLink(unix.RTM_SETLINK, 0, 0, unix.IFF_UP, unix.IFF_UP)
	request.Text(unix.IFLA_IFNAME, link)
	return conn.Do(request)
}

// remove deletes a link; one that is gone already is no error.
func remove(conn *netlink.Conn, link string) error {
	request := netlink.NewLink(unix.RTM_DELLINK, 0, 0, 0, 0)
	request.Text(unix.IFLA_IFNAME, link)
	if err := conn.Do(request); !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

func indexOf(conn *netlink.Conn, link string) (int, error) {
	index := 0
	err := query(conn, link, func(payload []byte) { index = int(netlink.Uint32(payload, 4)) })
	return index, err
}

// mtuOf returns a link's MTU in bytes.
func mtuOf(conn *netlink.Conn, link string) (uint32, error) {
	var mtu uint32
	err := query(conn, link, func(payload []byte) {
		for attribute, value := range netlink.Attributes(payload[unix.SizeofIfInfomsg:]) {
			if attribute == unix.IFLA_MTU {
				mtu = netlink.Uint32(value, 0)
			}
		}
	})
	return mtu, err
}

func query(conn *netlink.Conn, link string, each func(payload []byte)) error {
	request := netlink.NewLink(unix.RTM_GETLINK, 0, 0, 0, 0)
	request.Text(unix.IFLA_IFNAME, link)
	return conn.Query(request, each)
}

func newRoute(dest netip.Prefix, gateway netip.Addr) *netlink.Request {
	fixed := [unix.SizeofRtMsg]byte{
		unix.AF_INET, byte(dest.Bits()), 0, 0,
		unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST,
	}
	request := netlink.NewRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, fixed[:])
	request.Bytes(unix.RTA_DST, dest.Addr().AsSlice())
	request.Bytes(unix.RTA_GATEWAY, gateway.AsSlice())
	return request
}

// newVeth returns the request for a pair of links, the second in the namespace of
// the given descriptor.
func newVeth(name, peer string, inNamespace int) *netlink.Request {
	request := netlink.NewLink(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0, 0, 0)
	request.Text(unix.IFLA_IFNAME, name)
	request.Nest(unix.IFLA_LINKINFO, func() {
		request.Text(unix.IFLA_INFO_KIND, "veth")
		request.Nest(unix.IFLA_INFO_DATA, func() {
			request.Nest(vethPeer, func() {
				request.Raw(make([]byte, unix.SizeofIfInfomsg))
				request.Text(unix.IFLA_IFNAME, peer)
				request.Uint32(unix.IFLA_NET_NS_FD, uint32(inNamespace))
			})
		})
	})
	return request
}

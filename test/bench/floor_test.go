package bench_test

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
)

// floor makes and deletes TAPs with as few calls as the kernel allows: nothing is
// remembered, hardened, checked or read back.
type floor struct {
	conn *netlink.Conn
	made []int
}

func newFloor(b *testing.B) *floor {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	must(b, err)
	f := &floor{conn: conn}
	b.Cleanup(func() {
		for len(f.made) > 0 {
			f.delete(b)
		}
		must(b, conn.Close())
	})
	return f
}

// create makes a TAP with its group and a /30, up, and returns how long it took.
func (f *floor) create(b *testing.B) time.Duration {
	b.Helper()
	n := len(f.made)
	name := fmt.Sprintf("floor%d", n)
	address := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 200, byte(n >> 6), byte(n<<2 | 1)}), 30)
	start := time.Now()
	index, err := makeTAP(name)
	must(b, err)
	link := netlink.NewLink(unix.RTM_SETLINK, 0, index, unix.IFF_UP, unix.IFF_UP)
	link.Uint32(unix.IFLA_GROUP, 0x5a000001)
	must(b, f.conn.Do(netlink.NewAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE, index, address), link))
	took := time.Since(start)
	f.made = append(f.made, index)
	return took
}

// delete deletes the TAP that was made last and returns how long it took.
func (f *floor) delete(b *testing.B) time.Duration {
	b.Helper()
	last := len(f.made) - 1
	index := f.made[last]
	f.made = f.made[:last]
	start := time.Now()
	must(b, f.conn.Do(netlink.NewLink(unix.RTM_DELLINK, 0, index, 0, 0)))
	return time.Since(start)
}

// makeTAP makes a persistent TAP and returns its index.
func makeTAP(name string) (int, error) {
	file, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(int(file.Fd()), unix.TUNSETIFF, request); err != nil {
		return 0, err
	}
	if err := unix.IoctlSetInt(int(file.Fd()), unix.TUNSETPERSIST, 1); err != nil {
		return 0, err
	}
	return indexOf(name)
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

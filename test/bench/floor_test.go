package bench_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// floor makes and deletes TAPs with as few calls as the kernel allows: nothing is
// remembered, hardened, checked or read back.
type floor struct{ made []int }

func newFloor(b *testing.B) *floor {
	f := &floor{}
	b.Cleanup(func() {
		for len(f.made) > 0 {
			f.delete(b)
		}
	})
	return f
}

// create makes a TAP with its group and a /30, up, and returns how long it took.
func (f *floor) create(b *testing.B) time.Duration {
	b.Helper()
	n := len(f.made)
	name := fmt.Sprintf("floor%d", n)
	start := time.Now()
	must(b, makeTAP(name))
	link, err := netlink.LinkByName(name)
	must(b, err)
	must(b, netlink.LinkSetGroup(link, 0x5a000001))
	address, err := netlink.ParseAddr(fmt.Sprintf("10.200.%d.%d/30", n>>6&0xff, n<<2&0xff|1))
	must(b, err)
	must(b, netlink.AddrAdd(link, address))
	must(b, netlink.LinkSetUp(link))
	took := time.Since(start)
	f.made = append(f.made, link.Attrs().Index)
	return took
}

// delete deletes the TAP that was made last and returns how long it took.
func (f *floor) delete(b *testing.B) time.Duration {
	b.Helper()
	last := len(f.made) - 1
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: f.made[last]}}
	f.made = f.made[:last]
	start := time.Now()
	must(b, netlink.LinkDel(link))
	return time.Since(start)
}

func makeTAP(name string) error {
	file, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(int(file.Fd()), unix.TUNSETIFF, request); err != nil {
		return err
	}
	return unix.IoctlSetInt(int(file.Fd()), unix.TUNSETPERSIST, 1)
}

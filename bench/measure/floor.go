package measure

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/bench/report"
	"zwrm/internal/host/netlink"
	"zwrm/internal/host/nstest"
)

const (
	floorGroup = 0x464c // any but the kernel's default
	// queueLength is what zwrmd gives its TAPs: the kernel's default makes them larger.
	queueLength = 256
	// perSend is how many TAPs go into one send of a batch; each takes three requests.
	perSend = netlink.MaxBatch / 3
)

// floor makes and deletes TAPs with as few calls as the kernel allows: nothing is
// remembered, hardened, checked or read back. It has a namespace of its own, since
// zwrmd would see to its links.
type floor struct {
	calls  chan func()
	conn   *netlink.Conn
	socket int   // for ioctls about links
	made   []int // indices of links
}

func newFloor(t testing.TB) *floor {
	t.Helper()
	ns := nstest.New(t)
	ns.Set(t, "net/ipv6/conf/default/disable_ipv6", "1") // as zwrmd's TAPs
	f := &floor{calls: make(chan func())}
	go ns.Do(t, func() {
		for call := range f.calls {
			call()
		}
	})
	t.Cleanup(func() {
		f.deleteLast(t, len(f.made))
		close(f.calls)
	})
	f.do(func() (err error) {
		if f.conn, err = netlink.Dial(unix.NETLINK_ROUTE); err == nil {
			f.socket, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		}
		return err
	}).must(t)
	return f
}

// outcome is how a call went.
type outcome struct {
	took time.Duration
	err  error
}

func (o outcome) must(t testing.TB) time.Duration {
	t.Helper()
	must(t, o.err)
	return o.took
}

// do times a function on the thread that is in the floor's namespace.
func (f *floor) do(call func() error) outcome {
	done := make(chan outcome)
	f.calls <- func() {
		start := time.Now()
		err := call()
		done <- outcome{time.Since(start), err}
	}
	return <-done
}

func (f *floor) name() string { return report.Floor }
func (f *floor) pooled() bool { return false }

// attach makes one TAP with its group and a /30, up.
func (f *floor) attach(t testing.TB, _ int) time.Duration {
	t.Helper()
	return f.one(t, 1)
}

// one makes TAPs one after the other.
func (f *floor) one(t testing.TB, count int) time.Duration {
	t.Helper()
	return f.do(func() error {
		for range count {
			if err := f.make(1); err != nil {
				return err
			}
		}
		return nil
	}).must(t)
}

// batch makes TAPs with as few sends as there may be.
func (f *floor) batch(t testing.TB, count int) time.Duration {
	t.Helper()
	return f.do(func() error {
		for ; count > 0; count -= min(count, perSend) {
			if err := f.make(min(count, perSend)); err != nil {
				return err
			}
		}
		return nil
	}).must(t)
}

// make makes TAPs, whose settings and addresses go to the kernel in one send.
func (f *floor) make(count int) error {
	requests := make([]*netlink.Request, 0, 3*count)
	for range count {
		n := len(f.made)
		index, err := f.makeTAP(fmt.Sprintf("floor%d", n))
		if err != nil {
			return err
		}
		f.made = append(f.made, index)
		shape := netlink.NewLink(unix.RTM_SETLINK, 0, index, 0, 0)
		shape.Uint32(unix.IFLA_GROUP, floorGroup)
		shape.Uint32(unix.IFLA_TXQLEN, queueLength)
		requests = append(requests, shape,
			netlink.NewAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE, index, block(n)),
			netlink.NewLink(unix.RTM_SETLINK, 0, index, unix.IFF_UP, unix.IFF_UP))
	}
	return f.conn.Do(requests...)
}

// makeTAP makes a persistent TAP and returns its index.
func (f *floor) makeTAP(name string) (int, error) {
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
	if err := unix.IoctlIfreq(f.socket, unix.SIOCGIFINDEX, request); err != nil {
		return 0, err
	}
	return int(request.Uint32()), nil
}

// detach deletes the TAP that was made last.
func (f *floor) detach(t testing.TB, _ int) time.Duration {
	t.Helper()
	return f.do(func() error {
		last := len(f.made) - 1
		index := f.made[last]
		f.made = f.made[:last]
		return f.conn.Do(netlink.NewLink(unix.RTM_DELLINK, 0, index, 0, 0))
	}).must(t)
}

// deleteLast deletes the TAPs that were made last, at once, as zwrmd does: without their
// addresses they go faster.
func (f *floor) deleteLast(t testing.TB, count int) {
	t.Helper()
	if count == 0 {
		return
	}
	keep := len(f.made) - count
	f.do(func() error {
		var requests []*netlink.Request
		for i, index := range f.made[keep:] {
			request := netlink.NewLink(unix.RTM_SETLINK, 0, index, 0, 0)
			request.Uint32(unix.IFLA_GROUP, floorGroup+1)
			requests = append(requests, request, netlink.NewAddress(unix.RTM_DELADDR, 0, index, block(keep+i)))
		}
		f.made = f.made[:keep]
		if err := f.conn.Do(requests...); err != nil {
			return err
		}
		return deleteGroup(f.conn, floorGroup+1)
	}).must(t)
}

// deleteAll deletes every TAP by their group, in one request.
func (f *floor) deleteAll(t testing.TB) time.Duration {
	t.Helper()
	if len(f.made) == 0 {
		return 0
	}
	f.made = nil
	return f.do(func() error { return deleteGroup(f.conn, floorGroup) }).must(t)
}

// deleteGroup has the kernel delete all links of a group.
func deleteGroup(conn *netlink.Conn, group uint32) error {
	request := netlink.NewLink(unix.RTM_DELLINK, 0, 0, 0, 0)
	request.Uint32(unix.IFLA_GROUP, group)
	return conn.Do(request)
}

// block returns the address of the host's side of a /30 in 10.64.0.0/15.
func block(n int) netip.Prefix {
	address := [4]byte{}
	binary.BigEndian.PutUint32(address[:], 10<<24|64<<16|uint32(n)<<2|1)
	return netip.PrefixFrom(netip.AddrFrom4(address), 30)
}

package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
	"zwrm/internal/host/netlink"
	"zwrm/internal/ipam"
)

// ErrNoCarrier is wrapped by the refusal of Inject for a link that receives nothing.
var ErrNoCarrier = errors.New("it is down, or there is nothing at its other end (a TAP has its VM there)")

const (
	// scratchName is the name of the TAP that a frame enters by. The kernel puts the
	// first free number in, so two calls at the same time are in nobody's way.
	scratchName = "zwrm-trace%d"
	// virtioHeader is the size of struct virtio_net_hdr (linux/virtio_net.h), which
	// comes before each frame. All zero it says that checksums are in place.
	virtioHeader = 10
	// ethernetHeader is the size of an Ethernet header (IEEE 802.3).
	ethernetHeader = 14
)

// Inject makes the kernel take an Ethernet frame for one that it received by a link,
// as if the machine at the other end had sent it: rules see the link, its group, both
// Ethernet addresses and whether it was for the host just as of any other.
//
// A TAP's descriptor is its VMM's alone, and what is written to a packet socket goes
// out, not in. So the frame enters by a TAP of its own whose ingress (tc(8)) hands all
// over to that of the link. That TAP is there for some 20 ms, has no address and
// begins no conversation; since it is not persistent, a process that is killed leaves
// nothing.
//
// The error wraps ErrNoLink or ErrNoCarrier for a link that cannot receive, and names
// what of its configuration the kernel lacks.
func (k *Kernel) Inject(ctx context.Context, device string, frame []byte) error {
	if err := k.inject(ctx, device, frame); err != nil {
		return fmt.Errorf("inject frame into %q: %w", device, err)
	}
	return nil
}

func (k *Kernel) inject(ctx context.Context, device string, frame []byte) (err error) {
	if len(frame) < ethernetHeader {
		return fmt.Errorf("%d bytes are not an Ethernet frame", len(frame))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	k.changes.RLock()
	defer k.changes.RUnlock()
	target, err := lookUp(k.route, device)
	if err != nil {
		return err
	}
	if !target.Up || !target.Carrier {
		return ErrNoCarrier
	}
	s, err := k.newScratch(target, ipam.MAC(frame))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	kind, err := s.redirect(target.Index, mirred(), classifiers())
	if err != nil {
		return err
	}
	if err := s.up(); err != nil {
		return err
	}
	if err := effect.Do(k.hook, opInject, func() error {
		_, err := unix.Write(s.fd, append(make([]byte, virtioHeader), frame...))
		return err
	}); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return s.taken(ctx, kind)
}

// scratch is the TAP that a frame enters by. It goes when it is closed.
type scratch struct {
	tun
	kernel *Kernel
	conn   *netlink.Conn
	name   string
	index  int
}

// newScratch makes the TAP, which is down and in no group of ours.
//
// It has the Ethernet address of the target: by it the kernel finds out for whom a
// frame is (net/ethernet/eth.c eth_type_trans) before the frame is handed over. A
// target that has none, as a tunnel, receives nothing but what is for the host.
func (k *Kernel) newScratch(target device, dest ipam.MAC) (_ *scratch, err error) {
	t, err := k.newTUN(opMakeScratch, scratchName)
	if err != nil {
		return nil, err
	}
	s := &scratch{tun: t, kernel: k, conn: k.route}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	request, err := unix.NewIfreq("")
	if err == nil {
		err = unix.IoctlIfreq(s.fd, unix.TUNGETIFF, request)
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the name of the link: %w", err)
	}
	s.name = request.Name()
	link, err := lookUp(s.conn, s.name)
	if err != nil {
		return nil, err
	}
	s.index = link.Index
	mac := target.MAC
	if mac == (ipam.MAC{}) {
		mac = dest
	}
	return s, s.shape(mac)
}

// shape sets what must stand before the TAP is up: that it says nothing by itself.
func (s *scratch) shape(mac ipam.MAC) error {
	request := netlink.NewLink(unix.RTM_SETLINK, 0, s.index, 0, 0)
	request.Bytes(unix.IFLA_ADDRESS, mac[:])
	if s.kernel.ipv6 {
		setNoLinkLocal(request)
	}
	if err := s.change(opShapeScratch, request); err != nil {
		return fmt.Errorf("set up link %q: %w", s.name, linkError(err))
	}
	if s.kernel.ipv6 {
		if err := s.kernel.writeSysctl("net/ipv6/conf/"+s.name+"/disable_ipv6", "1"); err != nil {
			return fmt.Errorf("switch IPv6 off on link %q: %w", s.name, err)
		}
	}
	return nil
}

func (s *scratch) change(op effect.Op, request *netlink.Request) error {
	return s.kernel.change(s.conn, op, request)
}

func (s *scratch) up() error {
	if err := s.change(opShapeScratch, netlink.NewLink(unix.RTM_SETLINK, 0, s.index, unix.IFF_UP, unix.IFF_UP)); err != nil {
		return fmt.Errorf("bring link %q up: %w", s.name, linkError(err))
	}
	return nil
}

// takenTries and takenPause bound the wait for the kernel to hand the frame over. It
// does so while the frame is written, unless it was told to let another CPU receive
// packets (Documentation/networking/scaling.rst, RPS).
const (
	takenTries = 100
	takenPause = 2 * time.Millisecond
)

// taken waits until the frame was handed over. With the TAP, it would be gone.
func (s *scratch) taken(ctx context.Context, kind classifier) error {
	for range takenTries {
		packets, err := s.redirected(kind)
		if err != nil {
			return fmt.Errorf("ask whether the frame was handed over: %w", err)
		}
		if packets > 0 {
			return nil
		}
		select {
		case <-time.After(takenPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return errors.New("the kernel does not hand the frame over")
}

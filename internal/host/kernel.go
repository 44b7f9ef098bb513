package host

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
	"zwrm/internal/host/netlink"
	"zwrm/internal/turn"
)

var (
	// ErrForeign is wrapped by the refusal to touch a link that has a name of ours
	// and that ZWRM did not make. Nothing was changed.
	ErrForeign = errors.New("not made by ZWRM")
	// ErrNoLink is wrapped by errors about a link that is not there.
	ErrNoLink = errors.New("no such link")
)

// ipv6Sysctl is there exactly if the kernel has IPv6 (CONFIG_IPV6, and not
// booted with ipv6.disable=1).
const ipv6Sysctl = "net/ipv6/conf/all/disable_ipv6"

// Kernel is the kernel's network of the namespace that the process lives in. Its
// methods are safe for concurrent use; their errors name the object at fault.
//
// It keeps nothing in memory of what it made: the next process, or the same one
// after somebody else's change, finds all in the kernel.
type Kernel struct {
	route     *netlink.Conn // changes and single look-ups
	dump      *netlink.Conn // lists, which take long enough to be in the way of changes
	neigh     *netlink.Conn // neighbours, for who forgets a guest and must not wait for a list of links
	conntrack *netlink.Conn // nil: the kernel has no connection tracking
	ipv6      bool
	hook      effect.Hook // of what it changes

	// changes is held shared by whoever adds or removes links, and alone by a dump
	// that they interrupted before.
	changes sync.RWMutex
	// making is locked while TAPs are made. The kernel makes one link at a time
	// anyway (rtnl_mutex); this keeps two callers off the same name.
	making turn.Shared[*order]
	// forgetting reads the tables once for all.
	forgetting turn.Shared[*farewell]
	// deleting holds a token per deletion that waits in the kernel.
	deleting chan struct{}
}

// Open returns the Kernel of the calling thread's network namespace, in which
// the whole process must live: /dev/net/tun and /proc/sys/net belong to the
// namespace of whichever thread asks. The hook, which may be nil, is told of what the
// Kernel changes. The caller closes it.
func Open(hook effect.Hook) (_ *Kernel, err error) {
	k := &Kernel{hook: hook, deleting: make(chan struct{}, maxDeleting)}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.Close())
		}
	}()
	if k.route, err = netlink.Dial(unix.NETLINK_ROUTE); err != nil {
		return nil, err
	}
	if k.dump, err = netlink.Dial(unix.NETLINK_ROUTE); err != nil {
		return nil, err
	}
	if k.neigh, err = netlink.Dial(unix.NETLINK_ROUTE); err != nil {
		return nil, err
	}
	k.conntrack, err = netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil && !errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, err
	}
	_, err = os.Stat(sysctlPath(ipv6Sysctl))
	k.ipv6 = err == nil
	return k, nil
}

// Close closes the sockets. What the Kernel made stays.
func (k *Kernel) Close() error {
	var errs []error
	for _, conn := range []*netlink.Conn{k.route, k.dump, k.neigh, k.conntrack} {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(errs...)
}

// linkError says what the kernel's refusal means for a link that was named.
func linkError(err error) error {
	if errors.Is(err, unix.ENODEV) {
		return ErrNoLink
	}
	return err
}

// dumpTries bounds how often a list is read that changes under the reader.
const dumpTries = 10

// retry reads a list until it did not change meanwhile. A list that did is never
// used: what it lacks may well be there.
func retry(read func() error) error {
	err := read()
	for try := 1; try < dumpTries && errors.Is(err, netlink.ErrInterrupted); try++ {
		err = read()
	}
	return err
}

// list is retry for long lists. The first try is for free; for the others our
// own changes wait, since a steady flow of them would interrupt every one.
func (k *Kernel) list(read func() error) error {
	err := read()
	if !errors.Is(err, netlink.ErrInterrupted) {
		return err
	}
	k.changes.Lock()
	defer k.changes.Unlock()
	return retry(read)
}

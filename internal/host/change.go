package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
	"zwrm/internal/host/netlink"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// maxDeleting is how many deletions wait in the kernel at the same time.
const maxDeleting = 64

// SetGroup puts links into a device group and takes their alias away, by which a spare
// one is known, in one step. It goes on behind a link that fails; the error names each,
// and wraps ErrNoLink for one that is not there.
func (k *Kernel) SetGroup(ctx context.Context, group model.Group, names ...string) error {
	return k.setLinks(ctx, opSetGroup, fmt.Sprintf("put link %%q into group %s", group), names, func(name string) *netlink.Request {
		// RTM_SETLINK, not RTM_NEWLINK: with a name that is not there, the latter
		// changed all links of the given group before Linux 5.18.
		request := netlink.NewLink(unix.RTM_SETLINK, 0, 0, 0, 0)
		request.Text(unix.IFLA_IFNAME, name)
		request.Uint32(unix.IFLA_GROUP, uint32(group))
		request.Text(unix.IFLA_IFALIAS, "")
		return request
	})
}

// SetUp brings links up or down. It goes on behind a link that fails; the error
// names each, and wraps ErrNoLink for one that is not there.
func (k *Kernel) SetUp(ctx context.Context, up bool, names ...string) error {
	what, flags := "bring link %q down", uint32(0)
	if up {
		what, flags = "bring link %q up", unix.IFF_UP
	}
	return k.setLinks(ctx, opSetUp, what, names, func(name string) *netlink.Request {
		request := netlink.NewLink(unix.RTM_SETLINK, 0, 0, flags, unix.IFF_UP)
		request.Text(unix.IFLA_IFNAME, name)
		return request
	})
}

func (k *Kernel) setLinks(ctx context.Context, op effect.Op, what string, names []string, change func(name string) *netlink.Request) error {
	if err := ctx.Err(); err != nil || len(names) == 0 {
		return err
	}
	requests := make([]*netlink.Request, len(names))
	for i, name := range names {
		requests[i] = change(name)
	}
	if k.change(k.route, op, requests...) == nil {
		return nil
	}
	var errs []error
	for i, r := range requests {
		if r.Err() != nil {
			errs = append(errs, fmt.Errorf(what+": %w", names[i], linkError(r.Err())))
		}
	}
	return errors.Join(errs...)
}

// DeleteLinks deletes links. Those that are not there are no error; one that has
// the name of a TAP of ours but is not ours stays, and the error wraps
// ErrForeign. It goes on behind a link that fails, and ends early with ctx.
//
// The kernel lets about 20 ms pass in each deletion, outside of its locks (it
// waits until no CPU can still see the link). TAPs of ours are condemned, and deleted by
// their device group, some at a time: 0.25 ms per link, for which the kernel holds its
// lock on links. Of others up to 64 wait at the same time, about 1 ms per link.
//
// Addresses of TAPs are taken first, and their routes go with them, each by itself. A
// link that goes with routes has the kernel look through those of all links
// (net/ipv4/fib_frontend.c fib_disable_ip): 1 to 2 ms where there are 14,000.
func (k *Kernel) DeleteLinks(ctx context.Context, names ...string) error {
	var errs []error
	for some := range slices.Chunk(names, maxCondemned) {
		left, err := k.deleteTogether(ctx, some)
		errs = append(errs, err, k.deleteEach(ctx, left))
	}
	return errors.Join(errs...)
}

// maxCondemned is how many links are deleted at once: they share the fixed cost, and
// nobody can make or change a link meanwhile, up to 0.1 s.
const maxCondemned = 256

// deleteTogether condemns TAPs of ours and deletes all that are, which may be some of
// another caller's as well. It returns those that are left to be deleted one by one.
// A process that dies between the two leaves TAPs that carry nothing, and that anybody
// who looks for links of no VM finds.
func (k *Kernel) deleteTogether(ctx context.Context, names []string) (left []string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("delete links: %w", err)
	}
	k.changes.RLock()
	defer k.changes.RUnlock()
	var errs []error
	var condemn, strip []*netlink.Request
	for _, name := range names {
		d, err := k.device(name)
		switch {
		case errors.Is(err, ErrNoLink):
		case err != nil || !strings.HasPrefix(name, ipam.TAPPrefix):
			left = append(left, name)
		case d.foreign(name) != nil:
			errs = append(errs, fmt.Errorf("delete link %q: %w", name, d.foreign(name)))
		default:
			request := netlink.NewLink(unix.RTM_SETLINK, 0, d.Index, 0, 0)
			request.Uint32(unix.IFLA_GROUP, uint32(model.GroupCondemned))
			condemn = append(condemn, request)
			strip = append(strip, d.dropAddresses()...)
		}
	}
	if len(condemn) == 0 {
		return left, errors.Join(errs...)
	}
	if err := k.condemn(append(condemn, strip...)); err != nil {
		errs = append(errs, fmt.Errorf("delete %d links, the first %q: %w", len(condemn), names[0], err))
	}
	return left, errors.Join(errs...)
}

// condemn carries out requests that condemn links and take their addresses, and deletes
// what is condemned.
func (k *Kernel) condemn(requests []*netlink.Request) error {
	_ = k.change(k.route, opCondemn, requests...) // each request has its own error
	for _, r := range requests {
		if err := refusedDrop(r); err != nil && !errors.Is(err, unix.ENODEV) { // somebody else deletes it, too
			return err
		}
	}
	return k.deleteCondemned()
}

// deleteCondemned deletes what is condemned. Its socket is its own: a change must not
// wait for the end of the grace period.
func (k *Kernel) deleteCondemned() error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	request := netlink.NewLink(unix.RTM_DELLINK, 0, 0, 0, 0)
	request.Uint32(unix.IFLA_GROUP, uint32(model.GroupCondemned))
	return errors.Join(k.doDelete(conn, request), conn.Close())
}

// deleteEach deletes links one by one.
func (k *Kernel) deleteEach(ctx context.Context, names []string) error {
	queue := make(chan string, len(names))
	for _, name := range names {
		queue <- name
	}
	close(queue)
	var workers sync.WaitGroup
	errs := make([]error, min(len(names), maxDeleting))
	for i := range errs {
		workers.Go(func() { errs[i] = k.deleteFrom(ctx, queue) })
	}
	workers.Wait()
	return errors.Join(errs...)
}

func (k *Kernel) deleteFrom(ctx context.Context, queue <-chan string) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("delete links: %w", err)
	}
	var errs []error
	for name := range queue {
		select {
		case k.deleting <- struct{}{}:
			err = k.deleteNamed(conn, name)
			<-k.deleting
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("delete link %q: %w", name, err))
		}
	}
	return errors.Join(append(errs, conn.Close())...)
}

// deleteNamed deletes the link that was looked at, and not one that has got its
// name since: by its index, which the kernel gives out once.
func (k *Kernel) deleteNamed(conn *netlink.Conn, name string) error {
	k.changes.RLock()
	defer k.changes.RUnlock()
	d, err := lookUp(conn, name)
	if errors.Is(err, ErrNoLink) {
		return nil
	}
	if err != nil {
		return err
	}
	if strings.HasPrefix(name, ipam.TAPPrefix) {
		if err := d.foreign(name); err != nil {
			return err
		}
	}
	return k.deleteLink(conn, d.Index)
}

// deleteLink deletes a link. One that is gone already is no error.
func (k *Kernel) deleteLink(conn *netlink.Conn, index int) error {
	return k.doDelete(conn, netlink.NewLink(unix.RTM_DELLINK, 0, index, 0, 0))
}

// deleteNew deletes the link that the caller has made under this name just now.
func (k *Kernel) deleteNew(name string) error {
	request := netlink.NewLink(unix.RTM_DELLINK, 0, 0, 0, 0)
	request.Text(unix.IFLA_IFNAME, name)
	return k.doDelete(k.route, request)
}

func (k *Kernel) doDelete(conn *netlink.Conn, request *netlink.Request) error {
	if err := k.change(conn, opDeleteLink, request); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link: %w", err)
	}
	return nil
}

// Rename gives a link back a name of ours that somebody took from it. The error
// wraps ErrForeign if it is no TAP in a group of ours, and ErrNoLink if it is gone.
func (k *Kernel) Rename(ctx context.Context, from, to string) error {
	if err := k.rename(ctx, from, to); err != nil {
		return fmt.Errorf("rename link %q to %q: %w", from, to, err)
	}
	return nil
}

func (k *Kernel) rename(ctx context.Context, from, to string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	k.making.Lock() // of a TAP of that name
	defer k.making.Unlock()
	have, err := lookUp(k.route, from)
	if err != nil {
		return err
	}
	if err := have.foreign(from); err != nil {
		return err
	}
	request := func(flags, mask uint32) *netlink.Request {
		return netlink.NewLink(unix.RTM_SETLINK, 0, have.Index, flags, mask)
	}
	name := request(0, 0)
	name.Text(unix.IFLA_IFNAME, to)
	err = k.change(k.route, opRename, name)
	if errors.Is(err, unix.EBUSY) { // before Linux 6.2 only a link that is down
		name = request(0, unix.IFF_UP)
		name.Text(unix.IFLA_IFNAME, to)
		if err = k.change(k.route, opRename, request(0, unix.IFF_UP)); err == nil {
			err = k.change(k.route, opRename, name, request(unix.IFF_UP, unix.IFF_UP))
		}
	}
	return linkError(err)
}

package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
	"zwrm/internal/ipam"
)

// Of linux/netfilter/nfnetlink_conntrack.h, which golang.org/x/sys does not name.
const (
	ctGet         = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	ctDelete      = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE
	ctaTupleOrig  = 1                                 // CTA_TUPLE_ORIG
	ctaTupleReply = 2                                 // CTA_TUPLE_REPLY
	ctaID         = 12                                // CTA_ID
	ctaZone       = 18                                // CTA_ZONE
	ctaTupleIP    = 1                                 // CTA_TUPLE_IP
	ctaIPv4Src    = 1                                 // CTA_IP_V4_SRC
	ctaIPv4Dst    = 2                                 // CTA_IP_V4_DST
)

// flow is a tracked connection: its addresses as the first packet had them, and
// as an answer has them, which differ where the connection is translated.
type flow struct {
	origSrc, origDst, replySrc, replyDst netip.Addr
}

// farewell is the guests that a caller wants forgotten.
type farewell struct {
	guests []netip.Addr
	err    error
}

// Forget removes what the kernel remembers of guests: the tracked connections
// that have one's address as source or destination in either direction, and the
// neighbour entries of these addresses. The caller has closed the guests' links, or
// they go on making connections.
//
// Each table is read once for all guests, and for those of all callers who come while
// it is done for others: the kernel goes through its whole table of connections each
// time, some milliseconds.
func (k *Kernel) Forget(ctx context.Context, guests ...netip.Addr) error {
	if len(guests) == 0 {
		return nil
	}
	f := &farewell{guests: guests, err: ctx.Err()}
	if f.err == nil {
		// Whoever does it does it for others as well, whose ctx is another.
		lasting := context.WithoutCancel(ctx)
		k.forgetting.Do(f, nil, func(all []*farewell) { k.forgetAll(lasting, all) })
	}
	if f.err != nil {
		return fmt.Errorf("forget guest %s and %d more: %w", guests[0], len(guests)-1, f.err)
	}
	return nil
}

// forgetAll forgets the guests of all callers.
func (k *Kernel) forgetAll(ctx context.Context, all []*farewell) {
	guests := map[netip.Addr]struct{}{}
	for _, f := range all {
		for _, guest := range f.guests {
			guests[guest] = struct{}{}
		}
	}
	err := k.forget(ctx, guests)
	for _, f := range all {
		f.err = err
	}
}

func (k *Kernel) forget(ctx context.Context, guests map[netip.Addr]struct{}) error {
	is := func(a netip.Addr) bool { _, ok := guests[a]; return ok }
	err := k.forgetFlows(ctx, func(f flow) bool {
		return is(f.origSrc) || is(f.origDst) || is(f.replySrc) || is(f.replyDst)
	})
	return errors.Join(err, k.forgetNeighbours(ctx, is))
}

// ForgetBetween removes the tracked connections that were made from an address
// of the subnet to another. The firewall lets tracked connections pass, so the
// ones between VMs would outlive the rule that allowed them.
func (k *Kernel) ForgetBetween(ctx context.Context, subnet netip.Prefix) error {
	err := k.forgetFlows(ctx, func(f flow) bool {
		return subnet.Contains(f.origSrc) && subnet.Contains(f.origDst)
	})
	if err != nil {
		return fmt.Errorf("forget connections within %s: %w", subnet, err)
	}
	return nil
}

// ForgetOthers removes the tracked connections of addresses that guests of the subnet
// have, but none of these has. Whoever wrote to such an address while no rule stood in
// the way made one, and goes on keeping it alive.
func (k *Kernel) ForgetOthers(ctx context.Context, subnet netip.Prefix, guests ...netip.Addr) error {
	known := make(map[netip.Addr]struct{}, len(guests))
	for _, guest := range guests {
		known[guest] = struct{}{}
	}
	other := func(a netip.Addr) bool {
		_, ok := known[a]
		return !ok && subnet.Contains(a) && ipam.IsGuest(a)
	}
	err := k.forgetFlows(ctx, func(f flow) bool {
		return other(f.origSrc) || other(f.origDst) || other(f.replySrc) || other(f.replyDst)
	})
	if err != nil {
		return fmt.Errorf("forget connections of no guest within %s: %w", subnet, err)
	}
	return nil
}

// forgetFlows deletes the tracked connections that match. The list is read to its
// end first: the kernel keeps its place in it by an entry that must not go.
func (k *Kernel) forgetFlows(ctx context.Context, match func(flow) bool) error {
	if k.conntrack == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var doomed []*netlink.Request
	header := []byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0} // struct nfgenmsg
	err := retry(func() error {
		doomed = doomed[:0]
		return k.conntrack.Query(netlink.NewRequest(ctGet, unix.NLM_F_DUMP, header), func(payload []byte) {
			if len(payload) > len(header) && match(parseFlow(payload[len(header):])) {
				doomed = append(doomed, deleteFlow(header, payload[len(header):]))
			}
		})
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // nobody tracks connections: nf_conntrack_netlink is not there
	}
	if err != nil {
		return fmt.Errorf("list connections: %w", err)
	}
	_ = k.change(k.conntrack, opForgetFlow, doomed...)
	for _, r := range doomed {
		if r.Err() != nil && !errors.Is(r.Err(), unix.ENOENT) { // it ended by itself
			return fmt.Errorf("delete connection: %w", r.Err())
		}
	}
	return nil
}

func parseFlow(payload []byte) flow {
	var f flow
	for attribute, value := range netlink.Attributes(payload) {
		switch attribute {
		case ctaTupleOrig:
			f.origSrc, f.origDst = parseTuple(value)
		case ctaTupleReply:
			f.replySrc, f.replyDst = parseTuple(value)
		}
	}
	return f
}

func parseTuple(tuple []byte) (src, dst netip.Addr) {
	for attribute, value := range netlink.Attributes(tuple) {
		if attribute != ctaTupleIP {
			continue
		}
		for attribute, value := range netlink.Attributes(value) {
			switch attribute {
			case ctaIPv4Src:
				src, _ = netip.AddrFromSlice(value)
			case ctaIPv4Dst:
				dst, _ = netip.AddrFromSlice(value)
			}
		}
	}
	return src, dst
}

// deleteFlow returns the request to delete the connection of a list's message.
// The id keeps it off a new connection that has the same addresses and ports.
func deleteFlow(header, payload []byte) *netlink.Request {
	request := netlink.NewRequest(ctDelete, 0, header)
	for attribute, value := range netlink.Attributes(payload) {
		switch attribute {
		case ctaTupleOrig:
			request.Bytes(ctaTupleOrig|unix.NLA_F_NESTED, value)
		case ctaID, ctaZone:
			request.Bytes(attribute, value)
		}
	}
	return request
}

// forgetNeighbours deletes the neighbour entries (ARP) of certain addresses, on
// whichever link they are.
func (k *Kernel) forgetNeighbours(ctx context.Context, is func(netip.Addr) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var doomed []*netlink.Request
	fixed := [unix.SizeofNdMsg]byte{unix.AF_INET}
	err := retry(func() error {
		doomed = doomed[:0]
		return k.neigh.Query(netlink.NewRequest(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, fixed[:]), func(payload []byte) {
			if link, address, ok := parseNeighbour(payload); ok && is(address) {
				doomed = append(doomed, deleteNeighbour(link, address))
			}
		})
	})
	if err != nil {
		return fmt.Errorf("list neighbours: %w", err)
	}
	_ = k.change(k.route, opForgetNeighbour, doomed...)
	for _, r := range doomed {
		if r.Err() != nil && !errors.Is(r.Err(), unix.ENOENT) && !errors.Is(r.Err(), unix.ENODEV) { // it went with its link
			return fmt.Errorf("delete neighbour: %w", r.Err())
		}
	}
	return nil
}

// parseNeighbour reads an entry of the neighbour table (struct ndmsg).
func parseNeighbour(payload []byte) (link uint32, address netip.Addr, ok bool) {
	if len(payload) < unix.SizeofNdMsg {
		return 0, address, false
	}
	for attribute, value := range netlink.Attributes(payload[unix.SizeofNdMsg:]) {
		if attribute == unix.NDA_DST {
			address, ok = netip.AddrFromSlice(value)
		}
	}
	return netlink.Uint32(payload, 4), address, ok
}

func deleteNeighbour(link uint32, address netip.Addr) *netlink.Request {
	fixed := [unix.SizeofNdMsg]byte{unix.AF_INET}
	binary.NativeEndian.PutUint32(fixed[4:], link)
	request := netlink.NewRequest(unix.RTM_DELNEIGH, 0, fixed[:])
	request.Bytes(unix.NDA_DST, address.AsSlice())
	return request
}

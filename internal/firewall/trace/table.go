package trace

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
)

const (
	ownTable   = "zwrm-trace"
	ownComment = "zwrm trace"

	beforeAll = -350 // NF_IP_PRI_CONNTRACK_DEFRAG is -400, NF_IP_PRI_RAW -300
	behindAll = math.MaxInt32 - 1
)

// Attributes and flags that golang.org/x/sys/unix does not have
// (linux/netfilter/nf_tables.h).
const (
	tableHandle   = 4   // NFTA_TABLE_HANDLE
	tableUserdata = 6   // NFTA_TABLE_USERDATA
	flagOwner     = 0x2 // NFT_TABLE_F_OWNER
)

// The side effects of a Run.
const (
	opMark   effect.Op = "trace.mark-packet"
	opUnmark effect.Op = "trace.unmark-packet"
)

// table is our table, which marks the packet. Its socket owns it.
type table struct{ *conn }

// newTable makes the table. It takes the first flags that the kernel knows.
func newTable(reader *conn, probe Probe, flags []uint32) (*table, error) {
	left, err := reader.leftover()
	if err != nil {
		return nil, err
	}
	var failed error
	for _, flag := range flags {
		// A socket of its own for each: after a refusal more answers are on their way.
		c, err := dial(0, reader.hook)
		if err != nil {
			return nil, err
		}
		err = c.makeTable(probe, flag, left)
		if err == nil {
			return &table{c}, nil
		}
		failed = errors.Join(fmt.Errorf("make table %q: %w", ownTable, err), c.Close())
		switch {
		case errors.Is(err, unix.EEXIST), errors.Is(err, unix.EPERM): // somebody was faster
			return nil, ErrBusy
		case !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL):
			return nil, failed
		}
	}
	return nil, failed
}

// leftover returns the handle of the table that a process left which was killed on a
// kernel without owners of tables; 0: there is none. If it has an owner, and so is in
// use, the kernel lets nobody else delete it.
func (c *conn) leftover() (handle uint64, err error) {
	answer, err := c.get(unix.NFT_MSG_GETTABLE, unix.NFPROTO_INET, 0, func(e *netlink.AttributeEncoder) { e.String(unix.NFTA_TABLE_NAME, ownTable) })
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look for table %q: %w", ownTable, err)
	}
	ours := false
	for _, m := range answer {
		err = errors.Join(err, each(m, func(a *netlink.AttributeDecoder) {
			switch a.Type() {
			case tableHandle:
				handle = a.Uint64()
			case tableUserdata:
				ours = bytes.Equal(a.Bytes(), comment())
			}
		}))
	}
	if err != nil {
		return 0, err
	}
	if !ours {
		return 0, fmt.Errorf("table %q of nftables is not ZWRM's: delete it (nft delete table inet %[1]s)", ownTable)
	}
	return handle, nil
}

// comment is the table's, by which it is known for ours.
func comment() []byte { return userdata.AppendString(nil, userdata.TypeComment, ownComment) }

// ownChain is a chain of the table.
type ownChain struct {
	hook     Hook
	number   uint32 // NF_INET_*
	priority int32
	marks    bool // has the rule that marks the packet
}

// ownChains returns the chains of the table, named like their hooks.
func ownChains(probe Probe) []ownChain {
	return []ownChain{
		{Prerouting, unix.NF_INET_PRE_ROUTING, beforeAll, probe.Device != ""},
		{Output, unix.NF_INET_LOCAL_OUT, beforeAll, probe.Device == ""},
		{Input, unix.NF_INET_LOCAL_IN, behindAll, false},
		{Postrouting, unix.NF_INET_POST_ROUTING, behindAll, false},
	}
}

func (c *conn) makeTable(probe Probe, flags uint32, left uint64) error {
	var changes []netlink.Message
	var failed error
	add := func(kind uint16, flags netlink.HeaderFlags, fill func(*netlink.AttributeEncoder)) {
		m, err := request(kind, unix.NFPROTO_INET, flags, fill)
		changes, failed = append(changes, m), errors.Join(failed, err)
	}
	if left != 0 {
		add(unix.NFT_MSG_DELTABLE, 0, func(e *netlink.AttributeEncoder) { e.Uint64(tableHandle, left) })
	}
	add(unix.NFT_MSG_NEWTABLE, netlink.Create|netlink.Excl, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_TABLE_NAME, ownTable)
		e.Uint32(unix.NFTA_TABLE_FLAGS, flags)
		e.Bytes(tableUserdata, comment())
	})
	for _, chain := range ownChains(probe) {
		add(unix.NFT_MSG_NEWCHAIN, netlink.Create|netlink.Excl, chain.encode)
	}
	for _, chain := range ownChains(probe) {
		if chain.marks {
			add(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, func(e *netlink.AttributeEncoder) { probe.encodeRule(e, chain.hook) })
		}
	}
	if failed != nil {
		return failed
	}
	return c.commit(opMark, changes)
}

func (c ownChain) encode(e *netlink.AttributeEncoder) {
	e.String(unix.NFTA_CHAIN_TABLE, ownTable)
	e.String(unix.NFTA_CHAIN_NAME, string(c.hook))
	e.Nested(unix.NFTA_CHAIN_HOOK, func(e *netlink.AttributeEncoder) error {
		e.Uint32(unix.NFTA_HOOK_HOOKNUM, c.number)
		e.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
		return nil
	})
	e.Uint32(unix.NFTA_CHAIN_POLICY, 1) // NF_ACCEPT
	e.String(unix.NFTA_CHAIN_TYPE, "filter")
}

// encodeRule encodes the rule that marks the packet and no other.
func (p Probe) encodeRule(e *netlink.AttributeEncoder, in Hook) {
	e.String(unix.NFTA_RULE_TABLE, ownTable)
	e.String(unix.NFTA_RULE_CHAIN, string(in))
	e.Nested(unix.NFTA_RULE_EXPRESSIONS, func(e *netlink.AttributeEncoder) error {
		for _, x := range p.expressions() {
			e.Do(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, func() ([]byte, error) { return expr.Marshal(unix.NFPROTO_INET, x) })
		}
		return nil
	})
}

// expressions is, in the words of nft, meta nfproto ipv4 iifname DEVICE ip id ID
// ip saddr SOURCE ip daddr DEST meta nftrace set 1.
func (p Probe) expressions() []expr.Any {
	equal := func(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: data} }
	meta := func(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: unix.NFT_REG_1} }
	ipv4 := func(offset, length uint32) expr.Any {
		return &expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
	}
	all := []expr.Any{meta(expr.MetaKeyNFPROTO), equal([]byte{unix.NFPROTO_IPV4})}
	if p.Device != "" {
		whole := make([]byte, unix.IFNAMSIZ) // with its end: shorter data would be a prefix
		copy(whole, p.Device)
		all = append(all, meta(expr.MetaKeyIIFNAME), equal(whole))
	}
	return append(all,
		ipv4(4, 2), equal([]byte{byte(p.ID >> 8), byte(p.ID)}), // RFC 791
		ipv4(12, 8), equal(append(p.Source.AsSlice(), p.Dest.AsSlice()...)),
		&expr.Immediate{Register: unix.NFT_REG_1, Data: []byte{1}},
		&expr.Meta{Key: expr.MetaKeyNFTRACE, SourceRegister: true, Register: unix.NFT_REG_1})
}

// remove deletes the table and closes its socket, by which it goes where it has an
// owner, whatever the answer.
func (t *table) remove() error {
	m, err := request(unix.NFT_MSG_DELTABLE, unix.NFPROTO_INET, 0, func(e *netlink.AttributeEncoder) { e.String(unix.NFTA_TABLE_NAME, ownTable) })
	if err == nil {
		err = t.commit(opUnmark, []netlink.Message{m})
	}
	if errors.Is(err, unix.ENOENT) { // somebody did
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("delete table %q: %w", ownTable, err)
	}
	return errors.Join(err, t.Close())
}

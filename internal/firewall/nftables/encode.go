package nftables

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"zwrm/internal/firewall"
	"zwrm/internal/model"
)

// Attributes and flags that golang.org/x/sys/unix does not have
// (linux/netfilter/nf_tables.h).
const (
	tableHandle   = 4 // NFTA_TABLE_HANDLE
	tableUserdata = 6 // NFTA_TABLE_USERDATA
	tableOwner    = 7 // NFTA_TABLE_OWNER

	flagOwner   = 0x2 // NFT_TABLE_F_OWNER, since Linux 5.12
	flagPersist = 0x4 // NFT_TABLE_F_PERSIST, since Linux 6.9
)

// devgroup is the type of a set's key in the eyes of nft (TYPE_DEVGROUP of
// nftables' datatype.h). Two of them in a row are written with 6 bits each.
const (
	devgroup     = 35
	devgroupPair = devgroup<<6 | devgroup
)

// elementsPerRequest bounds a request with the longest comments to half of the
// 64 KiB that an attribute can have: (16 + 80 + 4) bytes each.
const elementsPerRequest = 300

// tableName is a table of the family inet.
type tableName string

func (b *batch) newTable(name tableName, flags uint32, exclusive netlink.HeaderFlags) {
	b.add(unix.NFT_MSG_NEWTABLE, netlink.Create|exclusive, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_TABLE_NAME, string(name))
		e.Uint32(unix.NFTA_TABLE_FLAGS, flags)
		e.Bytes(tableUserdata, userdata.AppendString(nil, userdata.TypeComment, tableComment))
	})
}

// deleteTable deletes the table that was seen, and no other that may have come in
// its place since.
func (b *batch) deleteTable(handle uint64) {
	b.add(unix.NFT_MSG_DELTABLE, 0, func(e *netlink.AttributeEncoder) { e.Uint64(tableHandle, handle) })
}

func (b *batch) newChain(table tableName, c chain) {
	b.add(unix.NFT_MSG_NEWCHAIN, netlink.Create|netlink.Excl, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_CHAIN_TABLE, string(table))
		e.String(unix.NFTA_CHAIN_NAME, string(c.name))
		if c.base == (base{}) {
			return
		}
		e.Nested(unix.NFTA_CHAIN_HOOK, func(e *netlink.AttributeEncoder) error {
			e.Uint32(unix.NFTA_HOOK_HOOKNUM, c.base.hook)
			e.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(c.base.priority))
			return nil
		})
		e.Uint32(unix.NFTA_CHAIN_POLICY, c.base.policy)
		e.String(unix.NFTA_CHAIN_TYPE, c.base.kind)
	})
}

func (b *batch) newRule(table tableName, in ChainName, r rule) {
	b.add(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_RULE_TABLE, string(table))
		e.String(unix.NFTA_RULE_CHAIN, string(in))
		e.Nested(unix.NFTA_RULE_EXPRESSIONS, func(e *netlink.AttributeEncoder) error {
			for _, x := range r.expressions {
				e.Do(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, func() ([]byte, error) { return expr.Marshal(unix.NFPROTO_INET, x) })
			}
			return nil
		})
		e.Bytes(unix.NFTA_RULE_USERDATA, r.userdata)
	})
}

func (b *batch) newSet(table tableName) {
	b.add(unix.NFT_MSG_NEWSET, netlink.Create|netlink.Excl, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_SET_TABLE, string(table))
		e.String(unix.NFTA_SET_NAME, setName)
		e.Uint32(unix.NFTA_SET_ID, 1) // names the set within the batch
		e.Uint32(unix.NFTA_SET_KEY_TYPE, devgroupPair)
		e.Uint32(unix.NFTA_SET_KEY_LEN, 8)
		e.Nested(unix.NFTA_SET_DESC, func(e *netlink.AttributeEncoder) error {
			e.Uint32(unix.NFTA_SET_DESC_SIZE, setSize)
			return nil
		})
	})
}

// elements adds (NFT_MSG_NEWSETELEM) or deletes (NFT_MSG_DELSETELEM) the apps'
// elements. Adding one that is there is an error, and so is deleting one that is
// not: the transaction then changes nothing, and its sender looks what is there.
func (b *batch) elements(kind uint16, table tableName, apps []firewall.App) {
	slices.SortFunc(apps, func(a, b firewall.App) int { return cmp.Compare(a.Group, b.Group) })
	flags := netlink.HeaderFlags(0)
	if kind == unix.NFT_MSG_NEWSETELEM {
		flags = netlink.Create | netlink.Excl
	}
	for chunk := range slices.Chunk(apps, elementsPerRequest) {
		b.add(kind, flags, func(e *netlink.AttributeEncoder) {
			e.String(unix.NFTA_SET_ELEM_LIST_TABLE, string(table))
			e.String(unix.NFTA_SET_ELEM_LIST_SET, setName)
			e.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(e *netlink.AttributeEncoder) error {
				for _, app := range chunk {
					e.Nested(unix.NFTA_LIST_ELEM, func(e *netlink.AttributeEncoder) error {
						encodeElement(e, app)
						return nil
					})
				}
				return nil
			})
		})
	}
}

func encodeElement(e *netlink.AttributeEncoder, app firewall.App) {
	e.Nested(unix.NFTA_SET_ELEM_KEY, func(e *netlink.AttributeEncoder) error {
		e.Bytes(unix.NFTA_DATA_VALUE, slices.Concat(register(app.Group), register(app.Group)))
		return nil
	})
	e.Bytes(unix.NFTA_SET_ELEM_USERDATA, userdata.AppendString(nil, userdata.NFTNL_UDATA_SET_ELEM_COMMENT, appComment(app)))
}

// register returns a group as the kernel's registers hold it: in the order of the
// machine.
func register(g model.Group) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(g)) }

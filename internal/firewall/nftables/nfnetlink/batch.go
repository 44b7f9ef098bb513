package nfnetlink

import (
	"slices"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes that golang.org/x/sys/unix does not have (linux/netfilter/nf_tables.h).
const (
	tableHandle   = 4 // NFTA_TABLE_HANDLE
	tableUserdata = 6 // NFTA_TABLE_USERDATA
	tableOwner    = 7 // NFTA_TABLE_OWNER
)

// elementsPerRequest bounds a request to half of the 64 KiB that an attribute can
// have, with comments of 80 bytes: (16 + 80 + 4) bytes each.
const elementsPerRequest = 300

// Batch is the requests of one transaction. What they name must exist in the kernel
// or come earlier in the batch.
type Batch struct {
	messages []netlink.Message
	err      error // of the first request that could not be encoded
}

// add appends a request (NFT_MSG_*). The encoder refuses an attribute of 64 KiB or
// more, whose length would not fit its field.
func (b *Batch) add(kind uint16, flags netlink.HeaderFlags, fill func(*netlink.AttributeEncoder)) {
	m, err := request(kind, flags, fill)
	if err != nil && b.err == nil {
		b.err = err
	}
	b.messages = append(b.messages, m)
}

// NewTable makes a table with the flags and userdata. One that is there is an error.
func (b *Batch) NewTable(name TableName, flags uint32, userdata []byte) {
	b.table(name, netlink.Excl, flags, userdata)
}

// ChangeTable gives a table its flags. With FlagOwner it belongs to this socket then,
// if it had no owner. The userdata is for a table that is not there any more.
func (b *Batch) ChangeTable(name TableName, flags uint32, userdata []byte) {
	b.table(name, 0, flags, userdata)
}

func (b *Batch) table(name TableName, exclusive netlink.HeaderFlags, flags uint32, userdata []byte) {
	b.add(unix.NFT_MSG_NEWTABLE, netlink.Create|exclusive, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_TABLE_NAME, string(name))
		e.Uint32(unix.NFTA_TABLE_FLAGS, flags)
		e.Bytes(tableUserdata, userdata)
	})
}

// DeleteTable deletes the table that was seen, and no other that may have come in
// its place since.
func (b *Batch) DeleteTable(handle uint64) {
	b.add(unix.NFT_MSG_DELTABLE, 0, func(e *netlink.AttributeEncoder) { e.Uint64(tableHandle, handle) })
}

// NewChain adds a chain.
func (b *Batch) NewChain(table TableName, c Chain) {
	b.add(unix.NFT_MSG_NEWCHAIN, netlink.Create|netlink.Excl, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_CHAIN_TABLE, string(table))
		e.String(unix.NFTA_CHAIN_NAME, string(c.Name))
		if c.Base == (Base{}) {
			return
		}
		e.Nested(unix.NFTA_CHAIN_HOOK, func(e *netlink.AttributeEncoder) error {
			e.Uint32(unix.NFTA_HOOK_HOOKNUM, c.Base.Hook)
			e.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(c.Base.Priority))
			return nil
		})
		e.Uint32(unix.NFTA_CHAIN_POLICY, c.Base.Policy)
		e.String(unix.NFTA_CHAIN_TYPE, c.Base.Kind)
	})
}

// NewRule adds a rule at the end of a chain.
func (b *Batch) NewRule(table TableName, in ChainName, expressions []expr.Any, userdata []byte) {
	b.add(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_RULE_TABLE, string(table))
		e.String(unix.NFTA_RULE_CHAIN, string(in))
		e.Nested(unix.NFTA_RULE_EXPRESSIONS, func(e *netlink.AttributeEncoder) error {
			for _, x := range expressions {
				e.Do(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, func() ([]byte, error) { return expr.Marshal(unix.NFPROTO_INET, x) })
			}
			return nil
		})
		e.Bytes(unix.NFTA_RULE_USERDATA, userdata)
	})
}

// NewSet adds a set.
func (b *Batch) NewSet(table TableName, s Set) {
	b.add(unix.NFT_MSG_NEWSET, netlink.Create|netlink.Excl, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_SET_TABLE, string(table))
		e.String(unix.NFTA_SET_NAME, string(s.Name))
		e.Uint32(unix.NFTA_SET_ID, 1) // names the set within the batch
		e.Uint32(unix.NFTA_SET_KEY_TYPE, s.KeyType)
		e.Uint32(unix.NFTA_SET_KEY_LEN, s.KeyLen)
		e.Nested(unix.NFTA_SET_DESC, func(e *netlink.AttributeEncoder) error {
			e.Uint32(unix.NFTA_SET_DESC_SIZE, s.Size)
			return nil
		})
	})
}

// AddElements adds elements to a set. One that is there is an error.
func (b *Batch) AddElements(table TableName, set SetName, elements []Element) {
	b.elements(unix.NFT_MSG_NEWSETELEM, netlink.Create|netlink.Excl, table, set, elements)
}

// DeleteElements deletes elements of a set. One that is not there is an error.
func (b *Batch) DeleteElements(table TableName, set SetName, elements []Element) {
	b.elements(unix.NFT_MSG_DELSETELEM, 0, table, set, elements)
}

func (b *Batch) elements(kind uint16, flags netlink.HeaderFlags, table TableName, set SetName, elements []Element) {
	for chunk := range slices.Chunk(elements, elementsPerRequest) {
		b.add(kind, flags, func(e *netlink.AttributeEncoder) {
			e.String(unix.NFTA_SET_ELEM_LIST_TABLE, string(table))
			e.String(unix.NFTA_SET_ELEM_LIST_SET, string(set))
			e.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(e *netlink.AttributeEncoder) error {
				for _, element := range chunk {
					e.Nested(unix.NFTA_LIST_ELEM, element.encode)
				}
				return nil
			})
		})
	}
}

func (x Element) encode(e *netlink.AttributeEncoder) error {
	e.Nested(unix.NFTA_SET_ELEM_KEY, func(e *netlink.AttributeEncoder) error {
		e.Bytes(unix.NFTA_DATA_VALUE, x.Key)
		return nil
	})
	e.Bytes(unix.NFTA_SET_ELEM_USERDATA, x.Userdata)
	return nil
}

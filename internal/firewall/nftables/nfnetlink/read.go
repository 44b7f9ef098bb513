package nfnetlink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Generation returns the number of the last transaction, of anybody on any table.
func (c *Conn) Generation() (uint32, error) {
	var id uint32
	answer, err := c.get(unix.NFT_MSG_GETGEN, 0, func(*netlink.AttributeEncoder) {})
	if err != nil {
		return 0, err
	}
	err = Attributes(answer, func(a *netlink.AttributeDecoder) {
		if a.Type() == unix.NFTA_GEN_ID {
			id = a.Uint32()
		}
	})
	return id, err
}

// Table returns the head of a table, or the zero Table if there is none.
func (c *Conn) Table(name TableName) (Table, error) {
	answer, err := c.get(unix.NFT_MSG_GETTABLE, 0, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_TABLE_NAME, string(name))
	})
	if errors.Is(err, unix.ENOENT) {
		return Table{}, nil
	}
	if err != nil {
		return Table{}, err
	}
	var found Table
	err = Attributes(answer, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case tableHandle:
			found.Handle = a.Uint64()
		case unix.NFTA_TABLE_FLAGS:
			found.Flags = a.Uint32()
		case tableOwner:
			found.Owner = a.Uint32()
		case tableUserdata:
			found.Userdata = a.Bytes()
		}
	})
	return found, err
}

// Chains returns the chains of a table. The kernel lists those of every table.
func (c *Conn) Chains(table TableName) ([]Chain, error) {
	answer, err := c.get(unix.NFT_MSG_GETCHAIN, netlink.Dump, func(*netlink.AttributeEncoder) {})
	if err != nil {
		return nil, err
	}
	var found []Chain
	for _, m := range answer {
		var in TableName
		var chain Chain
		err := Attributes([]netlink.Message{m}, func(a *netlink.AttributeDecoder) {
			switch a.Type() {
			case unix.NFTA_CHAIN_TABLE:
				in = TableName(a.String())
			case unix.NFTA_CHAIN_NAME:
				chain.Name = ChainName(a.String())
			case unix.NFTA_CHAIN_TYPE:
				chain.Base.Kind = a.String()
			case unix.NFTA_CHAIN_POLICY:
				chain.Base.Policy = a.Uint32()
			case unix.NFTA_CHAIN_HOOK:
				a.Nested(chain.Base.decode)
			}
		})
		if err != nil {
			return nil, err
		}
		if in == table {
			found = append(found, chain)
		}
	}
	return found, nil
}

func (b *Base) decode(a *netlink.AttributeDecoder) error {
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_HOOK_HOOKNUM:
			b.Hook = a.Uint32()
		case unix.NFTA_HOOK_PRIORITY:
			b.Priority = int32(a.Uint32())
		}
	}
	return nil
}

// Rules returns the rules of a table in order, chain by chain.
func (c *Conn) Rules(table TableName) ([]Rule, error) {
	answer, err := c.get(unix.NFT_MSG_GETRULE, netlink.Dump, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_RULE_TABLE, string(table))
	})
	if err != nil {
		return nil, err
	}
	var found []Rule
	for _, m := range answer {
		var rule Rule
		err := Attributes([]netlink.Message{m}, func(a *netlink.AttributeDecoder) {
			switch a.Type() {
			case unix.NFTA_RULE_CHAIN:
				rule.Chain = ChainName(a.String())
			case unix.NFTA_RULE_HANDLE:
				rule.Handle = a.Uint64()
			case unix.NFTA_RULE_USERDATA:
				rule.Userdata = a.Bytes()
			case unix.NFTA_RULE_EXPRESSIONS:
				a.Nested(rule.decodeExpressions)
			}
		})
		if err != nil {
			return nil, err
		}
		found = append(found, rule)
	}
	return found, nil
}

// decodeExpressions looks for the counter.
func (r *Rule) decodeExpressions(a *netlink.AttributeDecoder) error {
	for a.Next() {
		var name string
		a.Nested(func(a *netlink.AttributeDecoder) error {
			for a.Next() { // the name comes first (nf_tables_fill_expr_info in net/netfilter/nf_tables_api.c)
				switch {
				case a.Type() == unix.NFTA_EXPR_NAME:
					name = a.String()
				case a.Type() == unix.NFTA_EXPR_DATA && name == "counter":
					r.Counter = &Counter{}
					a.Nested(r.Counter.decode)
				}
			}
			return nil
		})
	}
	return nil
}

func (c *Counter) decode(a *netlink.AttributeDecoder) error {
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_COUNTER_PACKETS:
			c.Packets = a.Uint64()
		case unix.NFTA_COUNTER_BYTES:
			c.Bytes = a.Uint64()
		}
	}
	return nil
}

// Sets returns the sets of a table.
func (c *Conn) Sets(table TableName) ([]Set, error) {
	answer, err := c.get(unix.NFT_MSG_GETSET, netlink.Dump, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_SET_TABLE, string(table))
	})
	if err != nil {
		return nil, err
	}
	var found []Set
	for _, m := range answer {
		var set Set
		err := Attributes([]netlink.Message{m}, func(a *netlink.AttributeDecoder) {
			switch a.Type() {
			case unix.NFTA_SET_NAME:
				set.Name = SetName(a.String())
			case unix.NFTA_SET_FLAGS:
				set.Flags = a.Uint32()
			case unix.NFTA_SET_KEY_TYPE:
				set.KeyType = a.Uint32()
			case unix.NFTA_SET_KEY_LEN:
				set.KeyLen = a.Uint32()
			case unix.NFTA_SET_DESC:
				a.Nested(func(a *netlink.AttributeDecoder) error {
					for a.Next() {
						if a.Type() == unix.NFTA_SET_DESC_SIZE {
							set.Size = a.Uint32()
						}
					}
					return nil
				})
			}
		})
		if err != nil {
			return nil, err
		}
		found = append(found, set)
	}
	return found, nil
}

// Elements returns the elements of a set, in any order.
func (c *Conn) Elements(table TableName, set SetName) ([]Element, error) {
	answer, err := c.get(unix.NFT_MSG_GETSETELEM, netlink.Dump, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_SET_ELEM_LIST_TABLE, string(table))
		e.String(unix.NFTA_SET_ELEM_LIST_SET, string(set))
	})
	if err != nil {
		return nil, err
	}
	var found []Element
	err = Attributes(answer, func(a *netlink.AttributeDecoder) {
		if a.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return
		}
		a.Nested(func(a *netlink.AttributeDecoder) error {
			for a.Next() {
				var x Element
				a.Nested(x.decode)
				found = append(found, x)
			}
			return nil
		})
	})
	return found, err
}

func (x *Element) decode(a *netlink.AttributeDecoder) error {
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			a.Nested(func(a *netlink.AttributeDecoder) error {
				for a.Next() {
					if a.Type() == unix.NFTA_DATA_VALUE {
						x.Key = a.Bytes()
					}
				}
				return nil
			})
		case unix.NFTA_SET_ELEM_USERDATA:
			x.Userdata = a.Bytes()
		}
	}
	return nil
}

// Attributes calls f for every attribute of messages of nf_tables.
func Attributes(messages []netlink.Message, f func(*netlink.AttributeDecoder)) error {
	for _, m := range messages {
		if len(m.Data) < 4 {
			return errors.New("the kernel's answer is too short")
		}
		a, err := netlink.NewAttributeDecoder(m.Data[4:]) // behind struct nfgenmsg
		if err != nil {
			return fmt.Errorf("decode the kernel's answer: %w", err)
		}
		a.ByteOrder = binary.BigEndian
		for a.Next() {
			f(a)
		}
		if err := a.Err(); err != nil {
			return fmt.Errorf("decode the kernel's answer: %w", err)
		}
	}
	return nil
}

// Text returns the string of a type in userdata, which anybody may have written.
func Text(data []byte, kind userdata.Type) string {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		end := 2 + int(data[1])
		value, rest := data[2:end], data[end:]
		if userdata.Type(data[0]) == kind {
			return string(bytes.TrimSuffix(value, []byte{0}))
		}
		data = rest
	}
	return ""
}

package nftables

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"zwrm/internal/model"
)

// readTries bounds how often reading starts again because somebody changed a
// table, any on the host, in the meantime.
const readTries = 20

// snapshot is what the kernel holds. Its zero value is that there is no table.
type snapshot struct {
	handle uint64 // of the table; 0: there is none
	ours   bool   // it has our comment
	flags  uint32
	owner  uint32 // port of the socket that owns it, if flags say so
	chains []foundChain
	sets   []foundSet
	apps   map[pair]string // the comment of each element of our set
}

type foundChain struct {
	name  ChainName
	base  base
	rules []foundRule
}

// foundRule is a rule by its userdata, which is nil in those that are not ours.
type foundRule struct {
	handle   uint64
	userdata []byte
}

type foundSet struct {
	name            string
	kind, size, len uint32
	flags           uint32
}

// pair is the key of an element.
type pair struct{ from, to model.Group }

// read returns what the kernel holds, all of it from one moment: if the number of
// transactions grew meanwhile, a dump may lack rows or have some twice, so it
// begins again. So it does when what was listed is gone, and when an answer is
// broken off or lost.
func (c *conn) read() (snapshot, error) {
	var passing error
	for range readTries {
		found, changed, err := c.readOnce()
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOBUFS):
			passing = err
		case err != nil:
			return snapshot{}, err
		case !changed:
			return found, nil
		}
	}
	return snapshot{}, errors.Join(fmt.Errorf("tables changed each of %d times they were read", readTries), passing)
}

// readOnce returns what the kernel holds, and whether any table on the host
// changed meanwhile.
func (c *conn) readOnce() (found snapshot, changed bool, err error) {
	before, err := c.generation()
	if err != nil {
		return snapshot{}, false, err
	}
	if found, err = c.readTable(); err != nil {
		return snapshot{}, false, err
	}
	if found.ours {
		for _, part := range []func(*snapshot) error{c.readChains, c.readRules, c.readSets, c.readElements} {
			if err := part(&found); err != nil {
				return snapshot{}, false, err
			}
		}
	}
	after, err := c.generation()
	return found, before != after, err
}

// generation returns the number of the last transaction.
func (c *conn) generation() (uint32, error) {
	var id uint32
	answer, err := c.get(unix.NFT_MSG_GETGEN, 0, func(*netlink.AttributeEncoder) {})
	if err != nil {
		return 0, err
	}
	err = each(answer, func(a *netlink.AttributeDecoder) {
		if a.Type() == unix.NFTA_GEN_ID {
			id = a.Uint32()
		}
	})
	return id, err
}

// readTable reads what stands at the head of the table.
func (c *conn) readTable() (snapshot, error) {
	answer, err := c.get(unix.NFT_MSG_GETTABLE, 0, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_TABLE_NAME, string(ourTable))
	})
	if errors.Is(err, unix.ENOENT) {
		return snapshot{}, nil
	}
	if err != nil {
		return snapshot{}, err
	}
	var found snapshot
	err = each(answer, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case tableHandle:
			found.handle = a.Uint64()
		case unix.NFTA_TABLE_FLAGS:
			found.flags = a.Uint32()
		case tableOwner:
			found.owner = a.Uint32()
		case tableUserdata:
			found.ours = bytes.Equal(a.Bytes(), userdata.AppendString(nil, userdata.TypeComment, tableComment))
		}
	})
	return found, err
}

// readChains reads the chains. The kernel lists those of every table.
func (c *conn) readChains(found *snapshot) error {
	answer, err := c.get(unix.NFT_MSG_GETCHAIN, netlink.Dump, func(*netlink.AttributeEncoder) {})
	if err != nil {
		return err
	}
	for _, m := range answer {
		var in string
		var ch foundChain
		err := each([]netlink.Message{m}, func(a *netlink.AttributeDecoder) {
			switch a.Type() {
			case unix.NFTA_CHAIN_TABLE:
				in = a.String()
			case unix.NFTA_CHAIN_NAME:
				ch.name = ChainName(a.String())
			case unix.NFTA_CHAIN_TYPE:
				ch.base.kind = a.String()
			case unix.NFTA_CHAIN_POLICY:
				ch.base.policy = a.Uint32()
			case unix.NFTA_CHAIN_HOOK:
				a.Nested(func(a *netlink.AttributeDecoder) error {
					decodeHook(a, &ch.base)
					return nil
				})
			}
		})
		if err != nil {
			return err
		}
		if in == string(ourTable) {
			found.chains = append(found.chains, ch)
		}
	}
	return nil
}

func decodeHook(a *netlink.AttributeDecoder, b *base) {
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_HOOK_HOOKNUM:
			b.hook = a.Uint32()
		case unix.NFTA_HOOK_PRIORITY:
			b.priority = int32(a.Uint32())
		}
	}
}

// readRules reads the rules, which come in order, chain by chain.
func (c *conn) readRules(found *snapshot) error {
	at := map[ChainName]*foundChain{}
	for i := range found.chains {
		at[found.chains[i].name] = &found.chains[i]
	}
	answer, err := c.get(unix.NFT_MSG_GETRULE, netlink.Dump, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_RULE_TABLE, string(ourTable))
	})
	if err != nil {
		return err
	}
	for _, m := range answer {
		var in ChainName
		var r foundRule
		err := each([]netlink.Message{m}, func(a *netlink.AttributeDecoder) {
			switch a.Type() {
			case unix.NFTA_RULE_CHAIN:
				in = ChainName(a.String())
			case unix.NFTA_RULE_HANDLE:
				r.handle = a.Uint64()
			case unix.NFTA_RULE_USERDATA:
				r.userdata = a.Bytes()
			}
		})
		if err != nil {
			return err
		}
		if ch := at[in]; ch != nil {
			ch.rules = append(ch.rules, r)
		}
	}
	return nil
}

func (c *conn) readSets(found *snapshot) error {
	answer, err := c.get(unix.NFT_MSG_GETSET, netlink.Dump, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_SET_TABLE, string(ourTable))
	})
	if err != nil {
		return err
	}
	for _, m := range answer {
		var s foundSet
		err := each([]netlink.Message{m}, func(a *netlink.AttributeDecoder) {
			switch a.Type() {
			case unix.NFTA_SET_NAME:
				s.name = a.String()
			case unix.NFTA_SET_FLAGS:
				s.flags = a.Uint32()
			case unix.NFTA_SET_KEY_TYPE:
				s.kind = a.Uint32()
			case unix.NFTA_SET_KEY_LEN:
				s.len = a.Uint32()
			case unix.NFTA_SET_DESC:
				a.Nested(func(a *netlink.AttributeDecoder) error {
					for a.Next() {
						if a.Type() == unix.NFTA_SET_DESC_SIZE {
							s.size = a.Uint32()
						}
					}
					return nil
				})
			}
		})
		if err != nil {
			return err
		}
		found.sets = append(found.sets, s)
	}
	return nil
}

// readElements reads the apps of our set, if there is one of the right type.
func (c *conn) readElements(found *snapshot) error {
	if !found.hasSet() {
		return nil
	}
	answer, err := c.get(unix.NFT_MSG_GETSETELEM, netlink.Dump, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_SET_ELEM_LIST_TABLE, string(ourTable))
		e.String(unix.NFTA_SET_ELEM_LIST_SET, setName)
	})
	if err != nil {
		return err
	}
	found.apps = map[pair]string{}
	return each(answer, func(a *netlink.AttributeDecoder) {
		if a.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return
		}
		a.Nested(func(a *netlink.AttributeDecoder) error {
			for a.Next() {
				a.Nested(found.addElement)
			}
			return nil
		})
	})
}

// addElement takes in one element of the set.
func (s *snapshot) addElement(a *netlink.AttributeDecoder) error {
	var key pair
	var comment string
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			a.Nested(func(a *netlink.AttributeDecoder) error {
				for a.Next() {
					if b := a.Bytes(); a.Type() == unix.NFTA_DATA_VALUE && len(b) == 8 {
						key = pair{model.Group(binary.NativeEndian.Uint32(b)), model.Group(binary.NativeEndian.Uint32(b[4:]))}
					}
				}
				return nil
			})
		case unix.NFTA_SET_ELEM_USERDATA:
			comment = text(a.Bytes(), userdata.NFTNL_UDATA_SET_ELEM_COMMENT)
		}
	}
	s.apps[key] = comment
	return nil
}

// each calls f for every attribute of every message.
func each(messages []netlink.Message, f func(*netlink.AttributeDecoder)) error {
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

// text returns the string of a type in userdata, which anybody may have written.
func text(data []byte, kind userdata.Type) string {
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

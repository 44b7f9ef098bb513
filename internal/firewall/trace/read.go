package trace

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// chain names a chain.
type chain struct {
	family Family
	table  string
	name   string
}

// place is where the kernel calls a chain; zero for one that rules call.
type place struct {
	hook Hook
	nat  bool
}

// places is all chains of nf_tables.
type places map[chain]place

func (p places) ours() bool {
	for c := range p {
		if (Step{Family: c.family, Table: c.table, Chain: c.name}).Ours() {
			return true
		}
	}
	return false
}

// readTries bounds how often the chains are read that somebody changes meanwhile.
const readTries = 20

// places reads all chains: none on a kernel without nf_tables.
func (c *conn) places() (places, error) {
	for range readTries {
		answer, err := c.get(unix.NFT_MSG_GETCHAIN, unix.NFPROTO_UNSPEC, netlink.Dump, func(*netlink.AttributeEncoder) {})
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP): // nfnetlink without nf_tables
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("read the chains of nf_tables: %w", err)
		}
		all, whole := places{}, true
		for _, m := range answer {
			if m.Header.Flags&netlink.DumpInterrupted != 0 {
				whole = false
				break
			}
			c, p, err := decodeChain(m)
			if err != nil {
				return nil, err
			}
			all[c] = p
		}
		if whole {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read the chains of nf_tables: they changed each of %d times", readTries)
}

func decodeChain(m netlink.Message) (c chain, p place, err error) {
	err = each(m, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_CHAIN_TABLE:
			c.table = a.String()
		case unix.NFTA_CHAIN_NAME:
			c.name = a.String()
		case unix.NFTA_CHAIN_TYPE:
			p.nat = a.String() == "nat"
		case unix.NFTA_CHAIN_HOOK:
			a.Nested(func(a *netlink.AttributeDecoder) error {
				for a.Next() {
					if a.Type() == unix.NFTA_HOOK_HOOKNUM {
						p.hook = hookOf(a.Uint32())
					}
				}
				return nil
			})
		}
	})
	if err == nil {
		c.family = familyOf(m.Data[0])
	}
	return c, p, err
}

func hookOf(number uint32) Hook {
	hooks := []Hook{unix.NF_INET_PRE_ROUTING: Prerouting, unix.NF_INET_LOCAL_IN: Input, unix.NF_INET_FORWARD: Forward,
		unix.NF_INET_LOCAL_OUT: Output, unix.NF_INET_POST_ROUTING: Postrouting}
	if number < uint32(len(hooks)) {
		return hooks[number]
	}
	return ""
}

// families returns the families by the number that nf_tables has for each (NFPROTO_*).
func families() map[uint8]Family {
	return map[uint8]Family{unix.NFPROTO_INET: Inet, unix.NFPROTO_IPV4: IPv4}
}

func familyOf(number uint8) Family {
	if name, ok := families()[number]; ok {
		return name
	}
	return Family(fmt.Sprintf("family %d", number))
}

// addComments looks the comments of the rules up. A rule that is gone has none.
func (c *conn) addComments(r *Result) error {
	for i, step := range r.Steps {
		if step.Handle == 0 {
			continue
		}
		text, err := c.commentOf(step)
		if err != nil {
			return fmt.Errorf("read rule %d of chain %q in table %q: %w", step.Handle, step.Chain, step.Table, err)
		}
		r.Steps[i].Comment = text
		if r.Deciding == step {
			r.Deciding.Comment = text
		}
	}
	return nil
}

func (c *conn) commentOf(s Step) (string, error) {
	var family uint8
	for number, name := range families() {
		if name == s.Family {
			family = number
		}
	}
	answer, err := c.get(unix.NFT_MSG_GETRULE, family, 0, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_RULE_TABLE, s.Table)
		e.String(unix.NFTA_RULE_CHAIN, s.Chain)
		e.Uint64(unix.NFTA_RULE_HANDLE, s.Handle)
	})
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	text := ""
	for _, m := range answer {
		if text, err = decodeComment(m); err != nil {
			return "", err
		}
	}
	return text, nil
}

// decodeComment returns the comment of a rule: that which nft keeps, or the match
// "comment" by which iptables does.
func decodeComment(rule netlink.Message) (text string, err error) {
	var matched string
	err = each(rule, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_RULE_USERDATA:
			text = commentIn(a.Bytes())
		case unix.NFTA_RULE_EXPRESSIONS:
			a.Nested(func(a *netlink.AttributeDecoder) error {
				for a.Next() {
					a.Nested(func(a *netlink.AttributeDecoder) error {
						if found := matchedComment(a); found != "" {
							matched = found
						}
						return nil
					})
				}
				return nil
			})
		}
	})
	if text == "" {
		text = matched
	}
	return text, err
}

// commentIn returns the comment in a rule's userdata, a list of types, lengths and
// values that anybody may have written.
func commentIn(data []byte) string {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		end := 2 + int(data[1])
		if userdata.Type(data[0]) == userdata.TypeComment {
			return string(bytes.TrimRight(data[2:end], "\x00"))
		}
		data = data[end:]
	}
	return ""
}

// matchedComment returns the text of an expression that is iptables' match "comment",
// empty of any other. The match has 256 bytes for it (struct xt_comment_info).
func matchedComment(a *netlink.AttributeDecoder) string {
	var expression, match string
	var info []byte
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_EXPR_NAME:
			expression = a.String()
		case unix.NFTA_EXPR_DATA:
			a.Nested(func(a *netlink.AttributeDecoder) error {
				for a.Next() {
					switch a.Type() {
					case unix.NFTA_MATCH_NAME:
						match = a.String()
					case unix.NFTA_MATCH_INFO:
						info = a.Bytes()
					}
				}
				return nil
			})
		}
	}
	if expression != "match" || match != "comment" {
		return ""
	}
	text, _, _ := bytes.Cut(info, []byte{0})
	return string(text)
}

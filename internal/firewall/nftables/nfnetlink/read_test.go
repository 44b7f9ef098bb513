package nfnetlink

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// TestUserdataOfOthers: anybody may write userdata, of any form.
func TestUserdataOfOthers(t *testing.T) {
	long := userdata.AppendString(nil, userdata.TypeComment, strings.Repeat("x", 254))
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"none", nil, ""},
		{"half a header", []byte{0}, ""},
		{"longer than it is", []byte{0, 9, 'a'}, ""},
		{"another type", []byte{7, 1, 'a'}, ""},
		{"behind another type", []byte{7, 1, 'a', 0, 2, 'b', 0}, "b"},
		{"without end", []byte{0, 1, 'b'}, "b"},
		{"as long as can be", long, strings.Repeat("x", 254)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := Text(test.data, userdata.TypeComment); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// seeds are answers as the kernel gives them, and some as it never does.
func seeds(f *testing.F) [][]byte {
	type nest = *netlink.AttributeEncoder
	encode := func(fill func(e nest)) []byte {
		e := netlink.NewAttributeEncoder()
		e.ByteOrder = binary.BigEndian
		fill(e)
		data, err := e.Encode()
		if err != nil {
			f.Fatal(err)
		}
		return append([]byte{1, 0, 0, 0}, data...)
	}
	in := func(kind uint16, fill func(e nest)) func(e nest) error {
		return func(e nest) error {
			e.Nested(kind, func(e nest) error { fill(e); return nil })
			return nil
		}
	}
	return [][]byte{
		{1, 0, 0, 0},
		encode(func(e nest) { e.Uint32(unix.NFTA_GEN_ID, 7) }),
		encode(func(e nest) { e.String(unix.NFTA_GEN_ID, "no number") }),
		encode(func(e nest) {
			e.Uint64(tableHandle, 1)
			e.Uint32(unix.NFTA_TABLE_FLAGS, FlagOwner)
			e.Bytes(tableUserdata, []byte{0, 200, 'x'})
		}),
		encode(func(e nest) {
			e.String(unix.NFTA_CHAIN_TABLE, "zwrm")
			e.String(unix.NFTA_CHAIN_NAME, "forward")
			e.Nested(unix.NFTA_CHAIN_HOOK, func(e nest) error {
				e.Uint32(unix.NFTA_HOOK_HOOKNUM, 2)
				e.Uint32(unix.NFTA_HOOK_PRIORITY, 0)
				return nil
			})
		}),
		encode(func(e nest) {
			e.String(unix.NFTA_RULE_CHAIN, "forward")
			e.Bytes(unix.NFTA_RULE_USERDATA, []byte{0, 2, 'x', 0})
			e.Nested(unix.NFTA_RULE_EXPRESSIONS, in(1, func(e nest) { // NFTA_LIST_ELEM
				e.String(unix.NFTA_EXPR_NAME, "counter")
				e.Nested(unix.NFTA_EXPR_DATA, func(e nest) error { e.Uint64(unix.NFTA_COUNTER_PACKETS, 3); return nil })
			}))
		}),
		encode(func(e nest) {
			e.String(unix.NFTA_SET_NAME, "same_app")
			e.Nested(unix.NFTA_SET_DESC, func(e nest) error { e.Uint32(unix.NFTA_SET_DESC_SIZE, 65536); return nil })
		}),
		encode(func(e nest) {
			e.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, in(1, func(e nest) {
				e.Nested(unix.NFTA_SET_ELEM_KEY, func(e nest) error { e.Bytes(unix.NFTA_DATA_VALUE, make([]byte, 8)); return nil })
				e.Bytes(unix.NFTA_SET_ELEM_USERDATA, []byte{0, 1})
			}))
		}),
		{1, 0, 0, 0, 8, 0, 4, 0x80, 4, 0, 1, 0x80, 3, 0, 1, 0},
	}
}

// FuzzRead: whatever the kernel answers, it is read or refused. A part of an answer
// comes in two messages, as long lists do.
func FuzzRead(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed, len(seed)/2)
	}
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		answer := []netlink.Message{{Data: data}}
		if cut > 0 && cut < len(data) {
			answer = []netlink.Message{{Data: data[:cut]}, {Data: data[cut:]}}
		}
		c := New(&fake{answer: func(int) ([]netlink.Message, error) { return answer, nil }})
		_, _ = c.Generation()
		if table, err := c.Table("zwrm"); err == nil {
			Text(table.Userdata, userdata.TypeComment)
		}
		_, _ = c.Chains("zwrm")
		if rules, err := c.Rules("zwrm"); err == nil {
			for _, rule := range rules {
				Text(rule.Userdata, userdata.TypeComment)
			}
		}
		_, _ = c.Sets("zwrm")
		if elements, err := c.Elements("zwrm", "same_app"); err == nil && len(elements) > len(data) {
			t.Errorf("%d elements in %d bytes", len(elements), len(data))
		}
	})
}

package nftables

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"zwrm/internal/firewall/nftables/nfnetlink"
)

// String returns the table in the form of nft.
func (s snapshot) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n\tcomment %q\n", ourTable, tableComment)
	if s.Flags != 0 {
		fmt.Fprintf(&b, "\t# flags %s\n", flagText(s.Flags))
	}
	for _, set := range s.sets {
		if set != appSet() {
			fmt.Fprintf(&b, "\n\t# set %s, not of ZWRM\n", set.Name)
			continue
		}
		fmt.Fprintf(&b, "\n\tset %s {\n\t\ttype devgroup . devgroup\n\t\tsize %d\n", set.Name, set.Size)
		if len(s.apps) > 0 {
			fmt.Fprintf(&b, "\t\telements = { %s }\n", strings.Join(s.elements(), ",\n\t\t\t     "))
		}
		b.WriteString("\t}\n")
	}
	for _, c := range s.chains {
		fmt.Fprintf(&b, "\n\tchain %s {\n", c.Name)
		if c.Base != (nfnetlink.Base{}) {
			fmt.Fprintf(&b, "\t\t%s\n", called(c.Base))
		}
		for _, r := range c.rules {
			b.WriteString("\t\t" + lineOf(r) + "\n")
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// elements returns the apps in the form of nft, ordered by group.
func (s snapshot) elements() []string {
	var out []string
	for _, key := range sortedPairs(s.apps) {
		out = append(out, fmt.Sprintf("%s . %s comment %q", key.from, key.to, s.apps[key]))
	}
	return out
}

// sortedPairs returns the keys of elements in order.
func sortedPairs(apps map[pair]string) []pair {
	return slices.SortedFunc(maps.Keys(apps), func(a, b pair) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
}

// called returns the line that says where the kernel calls a chain.
func called(b nfnetlink.Base) string {
	hooks := map[uint32]string{unix.NF_INET_PRE_ROUTING: "prerouting", unix.NF_INET_LOCAL_IN: "input", unix.NF_INET_FORWARD: "forward",
		unix.NF_INET_LOCAL_OUT: "output", unix.NF_INET_POST_ROUTING: "postrouting"}
	policies := map[uint32]string{0: "drop", accept: "accept"}
	return fmt.Sprintf("type %s hook %s priority %d; policy %s;", b.Kind, hooks[b.Hook], b.Priority, policies[b.Policy])
}

// lineOf returns the rule in the form of nft, and one that is not ours as a comment.
func lineOf(r nfnetlink.Rule) string {
	if nfnetlink.Text(r.Userdata, textType) == "" {
		return "# " + wordsOf(r)
	}
	return wordsOf(r)
}

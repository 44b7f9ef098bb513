package iptables

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// script is the input of one `iptables-restore --noflush`. Each table is one
// transaction of the kernel.
type script struct{ strings.Builder }

func (s *script) line(format string, args ...any) { fmt.Fprintf(s, format+"\n", args...) }

// applyScript brings every table to what is wanted.
func applyScript(want []table, found snapshot) string {
	var s script
	for _, t := range want {
		s.table(t, found[t.name])
	}
	return s.String()
}

// removeScript removes everything of ours. What drops goes last.
func removeScript(found snapshot) string {
	var s script
	names := tables()
	slices.Reverse(names)
	for _, name := range names {
		s.table(table{name: name}, found[name])
	}
	return s.String()
}

// table writes one table anew. "--noflush" and a ":CHAIN" line empty that chain
// and no other, so our chains are filled from nothing and no packet sees them
// empty.
func (s *script) table(want table, found *contents) {
	ours, jumps := found.ours(), found.jumps()
	if len(want.chains)+len(ours)+len(jumps) == 0 {
		return // also: no table is made for nothing
	}
	s.line("*%s", want.name)
	for _, c := range want.chains {
		s.line(":%s - [0:0]", c.name)
	}
	var leftovers []ChainName
	for _, name := range ours {
		if !want.has(name) {
			leftovers = append(leftovers, name)
			s.line(":%s - [0:0]", name)
		}
	}
	s.hooks(want, jumps)
	for _, c := range want.chains {
		for _, r := range c.rules {
			s.line("-A %s %s", c.name, r.spec)
		}
	}
	for _, name := range leftovers {
		if found.user(name) == "" {
			s.line("-X %s", name)
		}
	}
	s.line("COMMIT")
}

// hooks makes each jump the first rule of its chain, once. One that is so is left
// alone. A rule is deleted by what it says and not by its number, since others
// may change the chain between our reading and our writing.
func (s *script) hooks(want table, jumps []hooked) {
	byChain := map[ChainName][]hooked{}
	var order []ChainName
	for _, h := range jumps {
		if len(byChain[h.chain]) == 0 {
			order = append(order, h.chain)
		}
		byChain[h.chain] = append(byChain[h.chain], h)
	}
	good := map[ChainName]bool{}
	for _, name := range order {
		here := byChain[name]
		if len(here) == 1 && here[0].number == 1 && here[0].spec == want.jumpFrom(name) {
			good[name] = true
			continue
		}
		for _, h := range here {
			s.line("-D %s %s", h.chain, h.spec)
		}
	}
	for _, c := range want.chains {
		if c.hook != "" && !good[c.hook] {
			s.line("-I %s 1 %s", c.hook, c.jump())
		}
	}
}

// dump writes what a snapshot holds of ours as `iptables -S` does, chains in the
// order of the design.
func dump(tool string, found snapshot) string {
	var s script
	for _, name := range tables() {
		t := found[name]
		chains, jumps := t.ours(), t.jumps()
		if len(chains)+len(jumps) == 0 {
			continue
		}
		slices.SortFunc(chains, func(a, b ChainName) int {
			return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
		})
		if s.Len() > 0 {
			s.line("")
		}
		s.line("# %s -t %s -S", tool, name)
		for _, c := range chains {
			s.line("-N %s", c)
		}
		for _, h := range jumps {
			s.line("-A %s %s", h.chain, h.spec)
		}
		for _, c := range chains {
			for _, spec := range t.chains[c] {
				s.line("-A %s %s", c, spec)
			}
		}
	}
	return s.String()
}

// rank returns the place of a chain in the design; chains that are not in it
// come last.
func rank(c ChainName) int {
	all := places()
	if i := slices.IndexFunc(all, func(p place) bool { return p.chain == c }); i >= 0 {
		return i
	}
	return len(all)
}

package nftables

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/google/nftables/userdata"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/nftables/nfnetlink"
)

// The words for what is not there.
const (
	missing = "missing"
	none    = "none"
)

// differ compares what the table should hold with what it holds.
type differ struct{ out []firewall.Difference }

// add notes a difference. An empty object is the table itself.
func (d *differ) add(object, wanted, found string) {
	name := "nftables inet " + string(ourTable)
	if object != "" {
		name += " " + object
	}
	d.out = append(d.out, firewall.Difference{Object: name, Wanted: wanted, Found: found})
}

// differences compares all but the flags and the owner of the table.
func differences(want table, found snapshot) []firewall.Difference {
	d := &differ{}
	if found.Handle == 0 {
		d.add("", fmt.Sprintf("table of %d chains", len(want.chains)), missing)
		return d.out
	}
	d.chains(want.chains, found.chains)
	if d.sets(want, found) {
		d.apps(want.apps, found.apps)
	}
	return d.out
}

func (d *differ) chains(want []chain, found []foundChain) {
	at := map[nfnetlink.ChainName]foundChain{}
	for _, c := range found {
		at[c.Name] = c
	}
	for _, c := range want {
		f, ok := at[c.Name]
		delete(at, c.Name)
		if !ok {
			d.add(string(c.Name), size(len(c.rules)), missing)
			continue
		}
		if c.Base != f.Base {
			d.add(string(c.Name), called(c.Base), called(f.Base))
		}
		d.rules(c, f)
	}
	for _, name := range slices.Sorted(maps.Keys(at)) {
		d.add(string(name), none, size(len(at[name].rules)))
	}
}

// rules compares the rules of a chain one by one, but for those before and after
// the first and the last that differ: one that is missing is one difference.
func (d *differ) rules(want chain, found foundChain) {
	w, f := want.rules, found.rules
	same := func(r rule, f nfnetlink.Rule) bool { return bytes.Equal(r.userdata, f.Userdata) }
	first := 0
	for first < min(len(w), len(f)) && same(w[first], f[first]) {
		first++
	}
	for len(w) > first && len(f) > first && same(w[len(w)-1], f[len(f)-1]) {
		w, f = w[:len(w)-1], f[:len(f)-1]
	}
	for i := first; i < max(len(w), len(f)); i++ {
		wanted, is := none, missing
		if i < len(w) {
			wanted = w[i].String()
		}
		if i < len(f) {
			is = wordsOf(f[i])
		}
		if i >= len(w) || i >= len(f) || !same(w[i], f[i]) {
			d.add(fmt.Sprintf("%s rule %d", want.Name, i+1), wanted, is)
		}
	}
}

// sets compares which sets there are, and reports whether ours is as it should be.
func (d *differ) sets(want table, found snapshot) bool {
	if want.set && !found.hasSet() {
		d.add("set "+string(setName), fmt.Sprintf("set of %d apps", len(want.apps)), missing)
	}
	for _, s := range found.sets {
		if !want.set || s != appSet() {
			d.add("set "+string(s.Name), none, fmt.Sprintf("set of size %d", s.Size))
		}
	}
	return want.set && found.hasSet()
}

// hasSet reports whether our set is there and of the right type.
func (s snapshot) hasSet() bool { return slices.Contains(s.sets, appSet()) }

func (d *differ) apps(want firewall.AppSet, found map[pair]string) {
	rest := maps.Clone(found)
	for _, group := range slices.Sorted(maps.Keys(want)) {
		key, comment := pair{group, group}, appComment(want[group])
		is, ok := rest[key]
		delete(rest, key)
		switch {
		case !ok:
			d.add(key.String(), comment, missing)
		case is != comment:
			d.add(key.String(), comment, strconv.Quote(is))
		}
	}
	for _, key := range sortedPairs(rest) {
		d.add(key.String(), none, strconv.Quote(rest[key]))
	}
}

// protection compares the flags of the table, and whether the socket of the given
// port owns it.
func (d *differ) protection(flags, port uint32, found snapshot) {
	switch {
	case found.Handle == 0:
	case found.Flags != flags:
		d.add("flags", flagText(flags), flagText(found.Flags))
	case flags&nfnetlink.FlagOwner != 0 && found.Owner != port:
		d.add("owner", "this zwrmd", fmt.Sprintf("netlink port %d", found.Owner))
	}
}

func flagText(flags uint32) string {
	switch flags {
	case 0:
		return none
	case nfnetlink.FlagOwner | nfnetlink.FlagPersist:
		return "owner,persist"
	case nfnetlink.FlagPersist:
		return "persist"
	}
	return fmt.Sprintf("0x%x", flags)
}

// String returns the rule in the form of nft.
func (r rule) String() string { return fmt.Sprintf("%s comment %q", r.text, r.comment) }

// wordsOf returns a rule in the form of nft, as far as we wrote it.
func wordsOf(r nfnetlink.Rule) string {
	words, comment := nfnetlink.Text(r.Userdata, textType), nfnetlink.Text(r.Userdata, userdata.TypeComment)
	if words == "" {
		words = fmt.Sprintf("rule with handle %d, not of ZWRM", r.Handle)
	}
	return rule{text: words, comment: comment}.String()
}

// String returns the element as nft prints it.
func (p pair) String() string { return fmt.Sprintf("element %s . %s", p.from, p.to) }

// size describes a whole chain.
func size(rules int) string {
	if rules == 1 {
		return "chain of 1 rule"
	}
	return fmt.Sprintf("chain of %d rules", rules)
}

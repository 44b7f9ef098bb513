package iptables

import (
	"errors"
	"fmt"
	"strings"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/xtables"
)

// snapshot is what iptables-save printed: the tables that ours may be in.
type snapshot map[TableName]*contents

// contents is one table of a snapshot.
type contents struct {
	order  []ChainName
	chains map[ChainName][]string // rules without "-A CHAIN"
	counts map[ChainName][]firewall.Count
}

// parse reads the output of iptables-save.
func parse(text string) (snapshot, error) {
	all, found := xtables.Parse(text), snapshot{}
	for _, name := range tables() {
		t := all[name]
		if t == nil {
			t = xtables.NewTable()
		}
		if t.Hidden {
			return nil, xtables.HiddenError(name) // ours cannot be told from what is not printed
		}
		found[name] = &contents{t.Order, t.Chains, t.Counts}
	}
	return found, nil
}

// marked reports whether a rule carries our comment.
func marked(spec string) bool {
	word := strings.TrimSuffix(mark, " ")
	return strings.Contains(spec, `--comment "`+word) || strings.Contains(spec, "--comment "+word)
}

// ours returns the chains that we made: those with a name of ours that are empty
// or hold a rule with our comment.
func (t *contents) ours() []ChainName {
	return t.named(func(rules []string) bool { return len(rules) == 0 || anyMarked(rules) })
}

// foreign returns the chains with a name of ours that somebody else made.
func (t *contents) foreign() []ChainName {
	return t.named(func(rules []string) bool { return len(rules) > 0 && !anyMarked(rules) })
}

func (t *contents) named(keep func(rules []string) bool) []ChainName {
	var names []ChainName
	for _, name := range t.order {
		if named(name) && keep(t.chains[name]) {
			names = append(names, name)
		}
	}
	return names
}

func anyMarked(rules []string) bool {
	for _, spec := range rules {
		if marked(spec) {
			return true
		}
	}
	return false
}

// hooked is a jump of ours in a chain that is not.
type hooked struct {
	chain  ChainName
	number int // of the rule, from 1
	spec   string
}

// jumps returns every rule of ours outside of our chains: the hooks, and what
// became of them.
func (t *contents) jumps() []hooked {
	var out []hooked
	for _, name := range t.order {
		if named(name) {
			continue
		}
		for i, spec := range t.chains[name] {
			if to, ok := xtables.Calls(spec); ok && named(to) && marked(spec) {
				out = append(out, hooked{name, i + 1, spec})
			}
		}
	}
	return out
}

// user returns the foreign rule that calls the chain, as `iptables -S` prints
// it, or "". The kernel deletes no chain that is called.
func (t *contents) user(chain ChainName) string {
	ours := map[ChainName]bool{}
	for _, name := range t.ours() {
		ours[name] = true
	}
	for _, name := range t.order {
		if ours[name] {
			continue
		}
		for _, spec := range t.chains[name] {
			if to, ok := xtables.Calls(spec); ok && to == chain && !marked(spec) {
				return "-A " + string(name) + " " + spec
			}
		}
	}
	return ""
}

// ForeignError says that a chain has a name of ours, but nothing in it is ours.
type ForeignError struct {
	Tool  string // "iptables" or "ip6tables"
	Table TableName
	Chain ChainName
}

// Error says which chain it is and what to do about it.
func (e *ForeignError) Error() string {
	return fmt.Sprintf("chain %q of table %q in %s is not ZWRM's: none of its rules has a comment that begins with \"zwrm:\"; "+
		"rename it (%[3]s -t %[2]s -E %[1]s NEW-NAME) or delete it (%[3]s -t %[2]s -F %[1]s, then -X %[1]s)",
		string(e.Chain), string(e.Table), e.Tool)
}

// foreign returns a *ForeignError for each foreign chain of the snapshot, joined.
func (s snapshot) foreign(tool string) error {
	var errs []error
	for _, name := range tables() {
		for _, chain := range s[name].foreign() {
			errs = append(errs, &ForeignError{tool, name, chain})
		}
	}
	return errors.Join(errs...)
}

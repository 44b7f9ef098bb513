package xtables

import (
	"fmt"
	"strings"
)

// TableName is a table of iptables.
type TableName string

// The tables.
const (
	Raw    TableName = "raw"
	Filter TableName = "filter"
	NAT    TableName = "nat"
)

// ChainName is a chain of iptables.
type ChainName string

// Snapshot is what iptables-save printed: the tables that there are.
type Snapshot map[TableName]*Table

// Table is one table of a Snapshot.
type Table struct {
	Order    []ChainName
	Chains   map[ChainName][]string // rules without "-A CHAIN", as iptables-save prints them
	Policies map[ChainName]string   // "ACCEPT" and "DROP" of the kernel's chains, "-" of others
	Hidden   bool                   // there are rules that iptables has no words for, and so none was printed
}

// NewTable returns a table without chains.
func NewTable() *Table {
	return &Table{Chains: map[ChainName][]string{}, Policies: map[ChainName]string{}}
}

// Parse reads the output of iptables-save.
func Parse(text string) Snapshot {
	found := Snapshot{}
	table := func(name TableName) *Table {
		if found[name] == nil {
			found[name] = NewTable()
		}
		return found[name]
	}
	current := NewTable() // of what stands before any table
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "*"):
			current = table(TableName(line[1:]))
		case hidden(line) != "":
			table(hidden(line)).Hidden = true
		case strings.HasPrefix(line, ":"):
			name, rest, _ := strings.Cut(line[1:], " ")
			policy, _, _ := strings.Cut(rest, " ")
			current.Order = append(current.Order, ChainName(name))
			current.Chains[ChainName(name)] = nil
			current.Policies[ChainName(name)] = policy
		case strings.HasPrefix(line, "-A "):
			name, spec, _ := strings.Cut(line[3:], " ")
			current.Chains[ChainName(name)] = append(current.Chains[ChainName(name)], spec)
		}
	}
	return found
}

// HiddenError says that nothing can be concluded from a table, since not all of it
// was printed.
func HiddenError(name TableName) error {
	return fmt.Errorf("table %q holds a rule made with nft that iptables has no words for, and so it shows none: "+
		"move that rule to a table of its own", string(name))
}

// hidden returns the table that iptables-save (nft variant) leaves out because of
// a foreign rule in it, or "". A table that only "contains incompatible
// base-chains" is printed without those, which is no harm.
func hidden(line string) TableName {
	rest, ok := strings.CutPrefix(line, "# Table `")
	if name, found := strings.CutSuffix(rest, "' is incompatible, use 'nft' tool."); ok && found {
		return TableName(name)
	}
	return ""
}

// Calls returns the chain that a rule jumps or goes to. The name is the last word
// of the rule, since a jump to a chain has no options.
func Calls(spec string) (ChainName, bool) {
	words := strings.Fields(spec)
	if n := len(words); n >= 2 && (words[n-2] == "-j" || words[n-2] == "-g") {
		return ChainName(words[n-1]), true
	}
	return "", false
}

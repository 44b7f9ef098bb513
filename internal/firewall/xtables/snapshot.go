package xtables

import (
	"fmt"
	"strconv"
	"strings"

	"zwrm/internal/firewall"
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
	Chains   map[ChainName][]string         // rules without "-A CHAIN", as iptables-save prints them
	Counts   map[ChainName][]firewall.Count // of the rules, in the same order; 0 without --counters
	Policies map[ChainName]string           // "ACCEPT" and "DROP" of the kernel's chains, "-" of others
	Hidden   bool                           // there are rules that iptables has no words for, and so none was printed
}

// NewTable returns a table without chains.
func NewTable() *Table {
	return &Table{Chains: map[ChainName][]string{}, Counts: map[ChainName][]firewall.Count{}, Policies: map[ChainName]string{}}
}

// Parse reads the output of iptables-save, with or without --counters.
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
		default:
			current.rule(line)
		}
	}
	return found
}

// rule takes in a line like "[7:420] -A INPUT -i lo -j ACCEPT", if it is one.
func (t *Table) rule(line string) {
	counters, rule, ok := strings.Cut(line, "-A ")
	if !ok || counters != "" && !strings.HasPrefix(counters, "[") {
		return
	}
	word, spec, _ := strings.Cut(rule, " ")
	name := ChainName(word)
	var count firewall.Count
	packets, bytes, _ := strings.Cut(strings.Trim(counters, "[] "), ":")
	count.Packets, _ = strconv.ParseUint(packets, 10, 64) // 0 without counters
	count.Bytes, _ = strconv.ParseUint(bytes, 10, 64)
	t.Chains[name] = append(t.Chains[name], spec)
	t.Counts[name] = append(t.Counts[name], count)
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

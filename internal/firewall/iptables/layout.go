package iptables

import (
	"slices"
	"strings"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/xtables"
)

// TableName is a table of iptables.
type TableName = xtables.TableName

// The tables that hold rules of ours.
const (
	Raw    = xtables.Raw
	Filter = xtables.Filter
	NAT    = xtables.NAT
)

// tables returns the tables in the order in which they are written: what drops
// stands before what opens a way out.
func tables() []TableName { return []TableName{Raw, Filter, NAT} }

// ChainName is a chain of iptables, one of the kernel's or one of ours.
type ChainName = xtables.ChainName

// The chains of ours.
const (
	RawChain     ChainName = "ZWRM-RAW"
	GuestChain   ChainName = "ZWRM-GUEST"
	ForwardChain ChainName = "ZWRM-FORWARD"
	PrivateChain ChainName = "ZWRM-PRIVATE"
	InputChain   ChainName = "ZWRM-INPUT"
	OutputChain  ChainName = "ZWRM-OUTPUT"
	NATChain     ChainName = "ZWRM-NAT"

	probeChain ChainName = "ZWRM-PROBE" // never called by a rule, gone before Open returns
)

const (
	chainPrefix = "ZWRM-"
	mark        = "zwrm: " // begins the comment of each rule of ours
)

// named reports whether the chain's name is one that we may use.
func named(c ChainName) bool { return strings.HasPrefix(string(c), chainPrefix) }

// place is where the rules of a stage stand.
type place struct {
	stage firewall.Stage
	table TableName
	chain ChainName
	hook  ChainName // the kernel's chain whose first rule jumps to chain; empty: none
}

func places() []place {
	return []place{
		{firewall.Ingress, Raw, RawChain, "PREROUTING"},
		{firewall.Guest, Raw, GuestChain, ""},
		{firewall.Forward, Filter, ForwardChain, "FORWARD"},
		{firewall.Private, Filter, PrivateChain, ""},
		{firewall.Input, Filter, InputChain, "INPUT"},
		{firewall.Output, Filter, OutputChain, "OUTPUT"},
		{firewall.NAT, NAT, NATChain, "POSTROUTING"},
	}
}

// table is what a table should hold of ours.
type table struct {
	name   TableName
	chains []chain
}

// chain is one chain of ours as it should be. A rule is written as iptables-save
// prints it, without "-A CHAIN".
type chain struct {
	name  ChainName
	hook  ChainName
	rules []rule
}

type rule struct {
	spec string
	app  bool // an app's: its place among the others of this kind means nothing
}

// jump returns the rule of the hook that calls the chain.
func (c chain) jump() string { return comment("hook") + " -j " + string(c.name) }

func comment(text string) string { return `-m comment --comment "` + mark + text + `"` }

// has reports whether there is a chain of that name.
func (t table) has(name ChainName) bool {
	return slices.ContainsFunc(t.chains, func(c chain) bool { return c.name == name })
}

// jumpFrom returns the jump that the hook should begin with, or "".
func (t table) jumpFrom(hook ChainName) string {
	for _, c := range t.chains {
		if c.hook == hook {
			return c.jump()
		}
	}
	return ""
}

package nftables

import (
	"golang.org/x/sys/unix"

	"zwrm/internal/firewall"
)

// ourTable is the table that holds all of ours.
const ourTable tableName = "zwrm"

const (
	tableComment = "zwrm"   // says that the table is ours
	mark         = "zwrm: " // begins the comment of each rule and element of ours
	setName      = "same_app"
	// setSize is how many apps the set holds. It is declared because a set without
	// a size is moved to a larger table while it grows, and reading it then misses
	// elements. It takes 1 MiB.
	setSize = 1 << 16
)

// accept is NF_ACCEPT (linux/netfilter.h).
const accept = 1

// ChainName is a chain of our table.
type ChainName string

// The chains.
const (
	PreroutingChain  ChainName = "prerouting"
	ForwardChain     ChainName = "forward"
	PrivateChain     ChainName = "private"
	InputChain       ChainName = "input"
	OutputChain      ChainName = "output"
	PostroutingChain ChainName = "postrouting"
)

// base is where the kernel calls a chain. The zero base is for chains that rules
// call.
type base struct {
	kind     string // "filter" or "nat"
	hook     uint32 // NF_INET_*
	priority int32
	policy   uint32
}

// place is where the rules of a stage stand.
type place struct {
	stage firewall.Stage
	chain ChainName
	base  base
}

// places returns the chains in the order in which packets meet them. The
// priorities are those of iptables' raw, filter and nat
// (linux/netfilter_ipv4.h): raw is before connection tracking.
func places() []place {
	const raw, filter, srcnat = -300, 0, 100
	return []place{
		{firewall.Ingress, PreroutingChain, base{"filter", unix.NF_INET_PRE_ROUTING, raw, accept}},
		{firewall.Forward, ForwardChain, base{"filter", unix.NF_INET_FORWARD, filter, accept}},
		{firewall.Private, PrivateChain, base{}},
		{firewall.Input, InputChain, base{"filter", unix.NF_INET_LOCAL_IN, filter, accept}},
		{firewall.Output, OutputChain, base{"filter", unix.NF_INET_LOCAL_OUT, filter, accept}},
		{firewall.NAT, PostroutingChain, base{"nat", unix.NF_INET_POST_ROUTING, srcnat, accept}},
	}
}

// table is what the kernel should hold.
type table struct {
	chains []chain
	set    bool // there is a set of apps: private networking is on
	apps   firewall.AppSet
}

// chain is one chain as it should be.
type chain struct {
	name  ChainName
	base  base
	rules []rule
}

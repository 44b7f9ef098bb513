package nftables

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/nftables/nfnetlink"
	"zwrm/internal/model"
)

// ourTable is the table that holds all of ours.
const ourTable nfnetlink.TableName = "zwrm"

const (
	tableComment = "zwrm"   // says that the table is ours
	mark         = "zwrm: " // begins the comment of each rule and element of ours
	// setSize is how many apps the set holds. It is declared because a set without
	// a size is moved to a larger table while it grows, and reading it then misses
	// elements. It takes 1 MiB.
	setSize = 1 << 16
)

// setName is the set of apps.
const setName nfnetlink.SetName = "same_app"

// devgroup is the type of a set's key in the eyes of nft (TYPE_DEVGROUP of
// nftables' datatype.h). Two of them in a row are written with 6 bits each.
const (
	devgroup     = 35
	devgroupPair = devgroup<<6 | devgroup
)

// accept is NF_ACCEPT (linux/netfilter.h).
const accept = 1

// The chains.
const (
	PreroutingChain  nfnetlink.ChainName = "prerouting"
	GuestChain       nfnetlink.ChainName = "guest"
	ForwardChain     nfnetlink.ChainName = "forward"
	PrivateChain     nfnetlink.ChainName = "private"
	InputChain       nfnetlink.ChainName = "input"
	OutputChain      nfnetlink.ChainName = "output"
	PostroutingChain nfnetlink.ChainName = "postrouting"
)

// place is where the rules of a stage stand.
type place struct {
	stage firewall.Stage
	chain nfnetlink.Chain
}

// tableUserdata says that the table is ours.
func tableUserdata() []byte {
	return userdata.AppendString(nil, userdata.TypeComment, tableComment)
}

// places returns the chains in the order in which packets meet them. The
// priorities are those of iptables' raw, filter and nat
// (linux/netfilter_ipv4.h): raw is before connection tracking.
func places() []place {
	const raw, filter, srcnat = -300, 0, 100
	called := func(kind string, hook uint32, priority int32) nfnetlink.Base {
		return nfnetlink.Base{Kind: kind, Hook: hook, Priority: priority, Policy: accept}
	}
	return []place{
		{firewall.Ingress, nfnetlink.Chain{Name: PreroutingChain, Base: called("filter", unix.NF_INET_PRE_ROUTING, raw)}},
		{firewall.Guest, nfnetlink.Chain{Name: GuestChain}},
		{firewall.Forward, nfnetlink.Chain{Name: ForwardChain, Base: called("filter", unix.NF_INET_FORWARD, filter)}},
		{firewall.Private, nfnetlink.Chain{Name: PrivateChain}},
		{firewall.Input, nfnetlink.Chain{Name: InputChain, Base: called("filter", unix.NF_INET_LOCAL_IN, filter)}},
		{firewall.Output, nfnetlink.Chain{Name: OutputChain, Base: called("filter", unix.NF_INET_LOCAL_OUT, filter)}},
		{firewall.NAT, nfnetlink.Chain{Name: PostroutingChain, Base: called("nat", unix.NF_INET_POST_ROUTING, srcnat)}},
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
	nfnetlink.Chain
	rules []rule
}

// appSet is the set of apps as it should be.
func appSet() nfnetlink.Set {
	return nfnetlink.Set{Name: setName, KeyType: devgroupPair, KeyLen: 8, Size: setSize}
}

// elementsOf returns the elements of apps, ordered by group.
func elementsOf(apps firewall.AppSet) []nfnetlink.Element {
	elements := make([]nfnetlink.Element, 0, len(apps))
	for _, app := range slices.SortedFunc(maps.Values(apps), func(a, b firewall.App) int { return cmp.Compare(a.Group, b.Group) }) {
		elements = append(elements, nfnetlink.Element{
			Key:      slices.Concat(register(app.Group), register(app.Group)),
			Userdata: userdata.AppendString(nil, userdata.NFTNL_UDATA_SET_ELEM_COMMENT, appComment(app)),
		})
	}
	return elements
}

// register returns a group as the kernel's registers hold it: in the order of the
// machine.
func register(g model.Group) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(g)) }

// fill puts everything into an empty table: chains first, since rules name them.
func (t table) fill(b *nfnetlink.Batch, name nfnetlink.TableName) {
	if t.set {
		b.NewSet(name, appSet())
		b.AddElements(name, setName, elementsOf(t.apps))
	}
	for _, c := range t.chains {
		b.NewChain(name, c.Chain)
	}
	for _, c := range t.chains {
		for _, r := range c.rules {
			b.NewRule(name, c.Name, r.expressions, r.userdata)
		}
	}
}

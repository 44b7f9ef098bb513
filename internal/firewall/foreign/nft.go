package foreign

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"

	"zwrm/internal/firewall/nftables/nfnetlink"
)

const (
	// bufferSize is that of the socket, in bytes. Its size at first is too little for
	// the chains of a large host.
	bufferSize = 16 << 20
	// readTries bounds how often reading starts again because tables changed.
	readTries = 5
	// ownTable is the table of the dataplane nftables, in the family inet.
	ownTable = "zwrm"
)

// Flags of a table (enum nft_table_flags in linux/netfilter/nf_tables.h). The library
// gives them in the order of bytes of the network.
const (
	dormant nftFlags = 1
	owner   nftFlags = 2
)

type nftFlags uint32

// has reports whether a flag is among those of a table, in either order of bytes.
func (f nftFlags) has(flag nftFlags) bool { return f&flag != 0 || f&(flag<<24) != 0 }

// readNFT returns the chains of others whose policy is drop, in the network namespace
// of the calling thread.
func readNFT() ([]NFTChain, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(s *netlink.Conn) error { return s.SetReadBuffer(bufferSize) }))
	if err != nil {
		return nil, err
	}
	var chains []NFTChain
	for range readTries {
		if chains, err = readChains(conn); err == nil {
			break
		}
	}
	return chains, errors.Join(err, conn.CloseLasting())
}

func readChains(conn *nftables.Conn) ([]NFTChain, error) {
	tables, err := conn.ListTables()
	if err != nil {
		return nil, err
	}
	flags := map[nftTable]nftFlags{}
	for _, t := range tables {
		flags[nftTable{t.Family, t.Name}] = nftFlags(t.Flags)
	}
	all, err := conn.ListChains()
	if err != nil {
		return nil, err
	}
	var out []NFTChain
	for _, c := range all {
		found, ok := nftChain(c)
		at := nftTable{c.Table.Family, c.Table.Name}
		if !ok || flags[at].has(dormant) {
			continue
		}
		found.Owned = flags[at].has(owner)
		if found.Lets, err = lets(conn, c); err != nil {
			return nil, err
		}
		out = append(out, found)
	}
	slices.SortFunc(out, func(a, b NFTChain) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// nftTable names a table.
type nftTable struct {
	family nftables.TableFamily
	name   string
}

// nftChain returns a chain that may drop what VMs send or get; false for others.
func nftChain(c *nftables.Chain) (NFTChain, bool) {
	families := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyINet: "inet"}
	hooks := map[nftables.ChainHook]Hook{
		*nftables.ChainHookPrerouting: Prerouting, *nftables.ChainHookInput: Input,
		*nftables.ChainHookForward: Forward, *nftables.ChainHookOutput: Output,
	}
	if c.Hooknum == nil || c.Priority == nil || c.Policy == nil || *c.Policy != nftables.ChainPolicyDrop {
		return NFTChain{}, false
	}
	family, hook := families[c.Table.Family], hooks[*c.Hooknum]
	if family == "" || hook == "" || family == "inet" && c.Table.Name == ownTable {
		return NFTChain{}, false
	}
	return NFTChain{Family: family, Table: c.Table.Name, Name: c.Name, Hook: hook, Priority: int(*c.Priority)}, true
}

// lets returns which accepts of ours somebody put into a chain.
func lets(conn *nftables.Conn, c *nftables.Chain) ([]Let, error) {
	rules, err := conn.GetRules(c.Table, c)
	if err != nil {
		return nil, err
	}
	var all []Let
	for _, r := range rules {
		if let, ours := strings.CutPrefix(nfnetlink.Text(r.UserData, userdata.TypeComment), mark); ours {
			all = append(all, Let(let))
		}
	}
	return all, nil
}

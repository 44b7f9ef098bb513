package nftables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
	"zwrm/internal/firewall"
	"zwrm/internal/firewall/nftables/nfnetlink"
)

// probeTable is the name under which the kernel is asked what it can do. No table
// of this name ever comes to be.
const probeTable nfnetlink.TableName = "zwrm-probe"

// Open opens a socket to the kernel, in the network namespace of the calling
// thread, and asks for everything that the rules need. It changes nothing. A table
// of our name that is not ours is a *ForeignError, as in Preflight. The hook, which may
// be nil, is told of what is changed.
func Open(ctx context.Context, hook effect.Hook) (*Dataplane, error) {
	if uid := os.Geteuid(); uid != 0 {
		return nil, fmt.Errorf("use nftables: only root may, and this process runs as user %d", uid)
	}
	s, err := nfnetlink.Dial()
	if err != nil {
		return nil, fmt.Errorf("use nftables: open a socket, for which the kernel needs CONFIG_NETFILTER_NETLINK: %w", err)
	}
	d, err := open(ctx, s, hook)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return d, nil
}

func open(ctx context.Context, s nfnetlink.Socket, hook effect.Hook) (*Dataplane, error) {
	d := &Dataplane{conn: nfnetlink.New(s), hook: hook}
	release, err := kernelRelease()
	if err != nil {
		return nil, err
	}
	d.version = "nf_tables of Linux " + release
	if d.able, err = probe(d.conn); err != nil {
		return nil, err
	}
	return d, d.Preflight(ctx)
}

// abilities is what of the kernel the rules can do without.
type abilities struct {
	flags    uint32 // of the table, as far as the kernel knows them
	matchMAC bool
}

func kernelRelease() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("ask for the kernel's release: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// protection returns the flags by which a table is its owner's alone and outlives
// it, or 0 if the kernel lacks either. It does not say which: without persist, the
// other is no good.
func protection(c *nfnetlink.Conn) (uint32, error) {
	const flags = nfnetlink.FlagOwner | nfnetlink.FlagPersist
	var b nfnetlink.Batch
	b.NewTable(probeTable, flags, tableUserdata())
	err := c.Check(b)
	if lacks(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("ask the kernel for the table flags owner and persist: %w", err)
	}
	return flags, nil
}

// lacks reports whether an answer says that the kernel does not know what it was
// asked for, and not that it failed this time.
func lacks(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

// feature is something of the kernel that the rules need.
type feature struct {
	what   string // for people
	option string // of the kernel's configuration
	rules  []firewall.Rule
}

// features returns everything that the rules need, what others build on first.
func features() []feature {
	rule := func(stage firewall.Stage, packet firewall.Packet, verdict firewall.Verdict) []firewall.Rule {
		return []firewall.Rule{{Stage: stage, Family: firewall.IPv4, Packet: packet, Verdict: verdict, Reason: "probe"}}
	}
	vms := firewall.Devices{VMs: true}
	return []feature{
		{"tables of the family inet", "CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET", nil},
		{"chains of the type filter", "CONFIG_NF_TABLES_INET", rule(firewall.Forward, "", firewall.Drop)},
		{"chains of the type nat", "CONFIG_NFT_NAT", rule(firewall.NAT, "", firewall.Accept)},
		{"device groups", "CONFIG_NF_TABLES", []firewall.Rule{{Stage: firewall.Forward, Family: firewall.Both, From: vms, To: vms, Verdict: firewall.Drop, Reason: "probe"}}},
		{"sets", "CONFIG_NF_TABLES", rule(firewall.Private, "", firewall.Drop)},
		{"expression fib", "CONFIG_NFT_FIB_INET", rule(firewall.Ingress, firewall.Misrouted, firewall.Drop)},
		{"expression ct", "CONFIG_NFT_CT", rule(firewall.Forward, firewall.Established, firewall.Accept)},
		{"expression masq", "CONFIG_NFT_MASQ", rule(firewall.NAT, "", firewall.Masquerade)},
	}
}

// probe asks the kernel for the features: all in one go, and one by one only to
// name the culprit.
func probe(c *nfnetlink.Conn) (abilities, error) {
	rules := firewall.Build(firewall.Policy{
		Subnet: netip.MustParsePrefix("172.16.0.0/16"), External: "probe", Private: true,
		Apps: []firewall.App{{Name: "probe", Group: 1}},
	})
	able := abilities{matchMAC: true}
	all := try(c, rules, able)
	if lacks(all) {
		able.matchMAC = false
		all = try(c, rules, able)
	}
	if all == nil {
		var err error
		able.flags, err = protection(c)
		return able, err
	}
	for _, f := range features() {
		if err := try(c, firewall.Ruleset{Rules: f.rules}, able); lacks(err) {
			return abilities{}, fmt.Errorf("use %s of nftables: the kernel needs %s: %w", f.what, f.option, err)
		}
	}
	return abilities{}, fmt.Errorf("ask the kernel what its nftables can do: %w", all)
}

// try asks the kernel whether it would take the rules.
func try(c *nfnetlink.Conn, rules firewall.Ruleset, able abilities) error {
	t, err := render(rules, able)
	if err != nil {
		return err
	}
	var b nfnetlink.Batch
	b.NewTable(probeTable, 0, tableUserdata())
	t.fill(&b, probeTable)
	return c.Check(b)
}

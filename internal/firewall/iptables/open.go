package iptables

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"zwrm/internal/effect"
	"zwrm/internal/firewall"
	"zwrm/internal/firewall/xtables"
)

// system is what a Dataplane is opened on.
type system struct {
	uid     int
	ipv6    bool // the kernel has IPv6
	variant xtables.Variant
	look    xtables.Look
	runner  xtables.Runner
	hook    effect.Hook
}

// Open finds the programs in PATH and asks the kernel for everything that the
// rules need. It changes nothing that lasts: the kernel is asked by a scratch
// chain that no rule calls. A chain of our name that is not ours is a
// *ForeignError, as in Preflight. The hook, which may be nil, is told of what is changed.
func Open(ctx context.Context, hook effect.Hook) (*Dataplane, error) {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return open(ctx, system{
		uid:    os.Geteuid(),
		ipv6:   !errors.Is(err, os.ErrNotExist), // in doubt it is there, and is closed
		look:   exec.LookPath,
		runner: &xtables.Processes{},
		hook:   hook,
	})
}

func open(ctx context.Context, sys system) (*Dataplane, error) {
	if sys.uid != 0 {
		return nil, fmt.Errorf("use iptables: only root may, and this process runs as user %d", sys.uid)
	}
	path, err := xtables.FindProgram(sys.look, "iptables"+string(sys.variant))
	if err != nil {
		return nil, err
	}
	d := &Dataplane{runner: sys.runner}
	families := []firewall.Family{firewall.IPv4}
	if sys.ipv6 {
		families = append(families, firewall.IPv6)
	}
	for _, family := range families {
		t, err := xtables.Find(sys.look, sys.runner, family, sys.variant, sys.hook)
		if err != nil {
			return nil, err
		}
		d.tools = append(d.tools, t)
	}
	version, err := d.runner.Run(ctx, "", path, "--version")
	if err != nil {
		return nil, fmt.Errorf("ask iptables for its version: %w", err)
	}
	d.version = strings.TrimSpace(version)
	if err := d.Preflight(ctx); err != nil {
		return nil, err
	}
	for _, t := range d.tools {
		if err := d.probe(ctx, t); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// feature is something of the kernel that the rules need.
type feature struct {
	what   string // for people
	option string // of the kernel's configuration; empty: there are several
	table  TableName
	spec   string // a rule that the kernel takes only if it has the feature; empty: the chain is enough
	family firewall.Family
}

// features returns everything that the rules need, what others build on first.
func features() []feature {
	probe := comment("probe")
	return []feature{
		{`table "raw"`, "", Raw, "", firewall.Both},
		{`table "filter"`, "", Filter, "", firewall.Both},
		{`table "nat"`, "", NAT, "", firewall.IPv4},
		{`match "comment"`, "CONFIG_NETFILTER_XT_MATCH_COMMENT", Raw, probe + " -j DROP", firewall.Both},
		{`match "devgroup"`, "CONFIG_NETFILTER_XT_MATCH_DEVGROUP", Raw, "-m devgroup --src-group 0x5a000000/0xff000000 " + probe + " -j DROP", firewall.Both},
		{`match "rpfilter"`, "CONFIG_IP_NF_MATCH_RPFILTER", Raw, "-m rpfilter --invert " + probe + " -j DROP", firewall.IPv4},
		{`match "bpf"`, "CONFIG_NETFILTER_XT_MATCH_BPF", Raw, `-m bpf --bytecode "1,6 0 0 0" ` + probe + " -j DROP", firewall.IPv4},
		{`match "u32"`, "CONFIG_NETFILTER_XT_MATCH_U32", Raw, `-m u32 ! --u32 "0x0>>0x18&0xf=0x5" ` + probe + " -j DROP", firewall.IPv4},
		{`match "pkttype"`, "CONFIG_NETFILTER_XT_MATCH_PKTTYPE", Raw, "-m pkttype ! --pkt-type unicast " + probe + " -j DROP", firewall.IPv4},
		{`match "conntrack"`, "CONFIG_NETFILTER_XT_MATCH_CONNTRACK", Filter, "-m conntrack --ctstate RELATED,ESTABLISHED " + probe + " -j DROP", firewall.IPv4},
		{`match "addrtype"`, "CONFIG_NETFILTER_XT_MATCH_ADDRTYPE", Filter, "-m addrtype --dst-type LOCAL --limit-iface-in " + probe + " -j DROP", firewall.IPv4},
		{`target "MASQUERADE"`, "CONFIG_NETFILTER_XT_TARGET_MASQUERADE", NAT, probe + " -j MASQUERADE", firewall.IPv4},
	}
}

// probe asks the kernel for the features of one family: all in one go, and one by
// one only to name the culprit.
func (d *Dataplane) probe(ctx context.Context, t xtables.Tool) error {
	needed := slices.DeleteFunc(features(), func(f feature) bool { return f.family&t.Family == 0 })
	all := d.try(ctx, t, needed...)
	if all == nil {
		return nil
	}
	for _, f := range needed {
		if err := d.try(ctx, t, f); err != nil {
			if f.option != "" {
				err = fmt.Errorf("the kernel needs %s: %w", f.option, err)
			}
			return fmt.Errorf("use %s of %s: %w", f.what, t.Name, err)
		}
	}
	return fmt.Errorf("ask the kernel what %s can do: %w", t.Name, all)
}

// try puts a rule for each feature into a scratch chain and takes the chain away
// again. That takes two transactions: a rule that comes and goes within one never
// reaches the kernel, and "iptables-restore --test" does not ask it either. A
// crash in between leaves a chain that no rule calls; Apply and Remove know it.
func (d *Dataplane) try(ctx context.Context, t xtables.Tool, needed ...feature) error {
	var put, take script
	for _, name := range tables() {
		rules := slices.DeleteFunc(slices.Clone(needed), func(f feature) bool { return f.table != name })
		if len(rules) == 0 {
			continue
		}
		put.line("*%s\n:%s - [0:0]", name, probeChain)
		for _, f := range rules {
			if f.spec != "" {
				put.line("-A %s %s", probeChain, f.spec)
			}
		}
		put.line("COMMIT")
		take.line("*%s\n:%s - [0:0]\n-X %[2]s\nCOMMIT", name, probeChain)
	}
	err := t.Restore(ctx, put.String())
	// Where a table cannot be written, neither was the scratch chain. Where it is, it is
	// tried again, since nobody else would take it away if zwrmd does not start.
	gone := t.Restore(context.WithoutCancel(ctx), take.String())
	if err == nil && gone != nil {
		gone = t.Restore(context.WithoutCancel(ctx), take.String())
	}
	if err == nil {
		err = gone
	}
	return err
}

package foreign

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/xtables"
)

// Survey is what the firewalls of a host look like: all of IPv4, since VMs have no
// other.
type Survey struct {
	Command  xtables.Variant // what the command iptables is; empty: there is none
	IPTables []Programs      // its variants, as far as they are there
	NFT      []NFTChain      // what drops in tables of nftables that are neither ours nor of iptables
}

// Programs is one variant of iptables and its rules.
type Programs struct {
	Variant xtables.Variant
	Tables  []Table
	Docker  bool // has chains of Docker
	Ufw     bool // has chains of ufw
}

// Table is a table of iptables.
type Table struct {
	Name   xtables.TableName
	Hidden bool // it has rules that iptables has no words for, so nothing more is known of it
	Rules  int  // of others
	Ours   int  // rules of the dataplane iptables
	Chains []Chain
}

// Chain is a chain of the kernel in a table of iptables.
type Chain struct {
	Name   xtables.ChainName
	Policy string
	End    string // what drops in the end: "policy DROP" or a rule; empty: nothing
	Lets   []Let  // accepts of ours in it, whoever put them there
}

// NFTChain is a chain of nftables that the kernel calls and whose policy is drop.
type NFTChain struct {
	Family   string // "ip" or "inet"
	Table    string
	Name     string
	Hook     Hook
	Priority int
	Owned    bool  // its table belongs to a process, and nobody else can change it
	Lets     []Let // accepts of ours in it, whoever put them there
}

// Survey looks at all firewalls and changes nothing. What can be told is told in any
// case: the error says why some is missing.
func (f *Firewalls) Survey(ctx context.Context) (Survey, error) {
	var s Survey
	var errs []error
	var err error
	if s.Command, err = f.command(ctx); err != nil {
		errs = append(errs, err)
	}
	for _, variant := range []xtables.Variant{xtables.NFT, xtables.Legacy} {
		programs, err := f.programs(ctx, variant, s.Command)
		if err != nil {
			errs = append(errs, err)
		}
		if programs != nil {
			s.IPTables = append(s.IPTables, *programs)
		}
	}
	all, err := f.sys.nftChains()
	if err != nil {
		errs = append(errs, fmt.Errorf("read the chains of nftables: %w", err))
	}
	for _, c := range all {
		if !s.knows(c) {
			s.NFT = append(s.NFT, c)
		}
	}
	return s, errors.Join(errs...)
}

// command asks the command iptables which variant it is. It says so since 1.8.0;
// before there was one.
func (f *Firewalls) command(ctx context.Context) (xtables.Variant, error) {
	path, err := f.sys.look("iptables" + string(f.sys.variant))
	if errors.Is(err, exec.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	text, err := f.sys.runner.Run(ctx, "", path, "--version")
	switch {
	case err != nil:
		return "", fmt.Errorf("ask iptables for its version: %w", err)
	case strings.Contains(text, "nf_tables"):
		return xtables.NFT, nil
	}
	return xtables.Legacy, nil
}

// programs looks at one variant; nil if it is not there.
func (f *Firewalls) programs(ctx context.Context, variant, command xtables.Variant) (*Programs, error) {
	tool, err := xtables.Find(f.sys.look, f.sys.runner, firewall.IPv4, variant, f.sys.hook)
	if err != nil && variant == command {
		tool, err = xtables.Find(f.sys.look, f.sys.runner, firewall.IPv4, f.sys.variant, f.sys.hook)
	}
	if errors.Is(err, exec.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := &Programs{Variant: variant}
	if variant == xtables.Legacy {
		names, err := f.sys.legacyTables()
		if err != nil {
			return nil, fmt.Errorf("list the tables of iptables-legacy: %w", err)
		}
		if strings.TrimSpace(names) == "" {
			return p, nil
		}
	}
	text, err := tool.Save(ctx)
	if err != nil {
		return nil, err
	}
	p.take(xtables.Parse(text))
	return p, nil
}

// take takes in what iptables-save printed.
func (p *Programs) take(found xtables.Snapshot) {
	for name, t := range found {
		p.Tables = append(p.Tables, survey(name, t))
		for chain := range t.Chains {
			p.Docker = p.Docker || chain == dockerUser || chain == "DOCKER"
			p.Ufw = p.Ufw || chain == "ufw-before-forward"
		}
	}
	slices.SortFunc(p.Tables, func(a, b Table) int { return strings.Compare(string(a.Name), string(b.Name)) })
}

func survey(name xtables.TableName, t *xtables.Table) Table {
	out := Table{Name: name, Hidden: t.Hidden}
	for _, chain := range t.Order {
		var lets []Let
		for _, spec := range t.Chains[chain] {
			switch {
			case ours(spec) && !strings.HasPrefix(string(chain), ownPrefix):
				lets = append(lets, comment(spec))
			case comment(spec) != "":
				out.Ours++
			default:
				out.Rules++
			}
		}
		if t.Policies[chain] != "-" {
			out.Chains = append(out.Chains, Chain{Name: chain, Policy: t.Policies[chain], End: end(t, chain), Lets: lets})
		}
	}
	return out
}

// knows reports whether a chain of nftables is one that iptables-nft has told of. It
// leaves out those in its tables that it did not make.
func (s Survey) knows(c NFTChain) bool {
	for _, p := range s.IPTables {
		for _, t := range p.Tables {
			if p.Variant != xtables.NFT || c.Family != "ip" || c.Table != string(t.Name) {
				continue
			}
			return slices.ContainsFunc(t.Chains, func(known Chain) bool { return string(known.Name) == c.Name })
		}
	}
	return false
}

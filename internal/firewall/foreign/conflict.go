package foreign

import (
	"fmt"
	"slices"
	"strings"

	"zwrm/internal/firewall/xtables"
)

// conntrackPriority is where connections become known (NF_IP_PRI_CONNTRACK in
// linux/netfilter_ipv4.h): a chain of that or a lower priority cannot ask for them.
const conntrackPriority = -200

// panicTable is firewalld's while it lets nothing through: in panic mode, and for a
// moment whenever it reloads.
const panicTable = "firewalld_policy_drop"

// Conflict is something in a firewall of others that stands in VMs' way and that we do
// not change.
type Conflict struct {
	Subject string // as in "chain FORWARD of iptables-legacy"
	What    string // what is wrong with it; it reads on from the subject
	Mend    string // what to do, mostly commands, one per line
	Drops   bool   // it may drop what VMs send and get; else it may come to that
}

// Conflicts returns what stands in VMs' way. What our own rules get through is none.
func Conflicts(s Survey, w Want) []Conflict {
	var all []Conflict
	for _, p := range s.IPTables {
		for _, t := range p.Tables {
			all = append(all, p.table(t, s.Command, w)...)
		}
		if p.Variant != s.Command {
			all = append(all, p.mixed(s.Command)...)
		}
	}
	for _, c := range s.NFT {
		all = append(all, c.conflicts(w)...)
	}
	return all
}

// program is the command that changes rules of this variant.
func (p Programs) program(command xtables.Variant) string {
	if p.Variant == command {
		return "iptables"
	}
	return "iptables" + string(p.Variant)
}

// table returns the conflicts of one table. In the table filter of the variant that is
// ours, too, VMs are let through by our chains or accepts, unless it is hidden.
func (p Programs) table(t Table, command xtables.Variant, w Want) []Conflict {
	program := p.program(command)
	switch {
	case t.Hidden:
		return []Conflict{{
			Subject: fmt.Sprintf("table %s of %s", t.Name, program),
			What:    "has a rule made with nft that iptables has no words for, so nothing can be read of it or put there",
			Mend:    fmt.Sprintf("move that rule to a table of its own: nft -a list table ip %s", t.Name),
			Drops:   t.Name == xtables.Filter && p.Variant == command,
		}}
	case t.Name == xtables.Filter && p.Variant == command:
		return nil
	}
	var all []Conflict
	for _, c := range t.Chains {
		mend := c.mend(program, t, w)
		if mend == "" {
			continue
		}
		all = append(all, Conflict{
			Subject: fmt.Sprintf("chain %s in table %s of %s", c.Name, t.Name, program),
			What:    fmt.Sprintf("drops what none of its rules accepts (%s), and what VMs send and get with it", c.End),
			Mend:    mend,
			Drops:   true,
		})
	}
	return all
}

// mend returns the commands after which the chain lets VMs through; "" if it does. A
// policy above no rules at all is what somebody left behind.
func (c Chain) mend(program string, t Table, w Want) string {
	if c.End == "" {
		return ""
	}
	if t.Name != xtables.Filter {
		program += " -t " + string(t.Name)
	}
	i := slices.IndexFunc(builtins(), func(b builtin) bool { return b.chain == c.Name })
	if t.Name == xtables.Filter && i >= 0 {
		lacks := missing(w.accepts(builtins()[i].hook), c.Lets)
		if len(lacks) == 0 {
			return ""
		}
		if t.Rules > 0 {
			return lines(lacks, func(a accept) string { return fmt.Sprintf("%s -I %s %s", program, c.Name, a.spec()) })
		}
	}
	if c.End == policyDrop {
		return fmt.Sprintf("%s -P %s ACCEPT", program, c.Name)
	}
	return fmt.Sprintf("%s -D %s %s", program, c.Name, c.End)
}

// mixed returns what there is to say of a variant that is not the one that iptables is.
func (p Programs) mixed(command xtables.Variant) []Conflict {
	program := p.program(command)
	rules, ours := 0, 0
	for _, t := range p.Tables {
		rules, ours = rules+t.Rules, ours+t.Ours
	}
	var all []Conflict
	if ours > 0 {
		all = append(all, Conflict{
			Subject: program,
			What:    fmt.Sprintf("has %s of ZWRM from when the command iptables was %[2]s: they know nothing of the apps of today, and drop what those send", count(ours), program),
			Mend:    fmt.Sprintf("%s-save -c | grep -v -i zwrm | %[1]s-restore -c", program),
			Drops:   true,
		})
	}
	if rules > 0 && command != "" {
		all = append(all, Conflict{
			Subject: program,
			What:    fmt.Sprintf("has %s while the command iptables is iptables%s: packets go by the rules of both, and a drop by either is final", count(rules), command),
			Mend:    fmt.Sprintf("look at them with %s-save, make those anew with iptables that are needed, and delete them", program),
		})
	}
	return all
}

func count(rules int) string {
	if rules == 1 {
		return "1 rule"
	}
	return fmt.Sprintf("%d rules", rules)
}

// conflicts returns what a chain of nftables keeps from VMs.
func (c NFTChain) conflicts(w Want) []Conflict {
	lacks := missing(w.accepts(c.Hook), c.Lets)
	if len(lacks) == 0 {
		return nil
	}
	out := Conflict{
		Subject: fmt.Sprintf("chain %s of nftables", c),
		What:    fmt.Sprintf("drops at hook %s, priority %d, what none of its rules accepts, and what VMs send and get with it", c.Hook, c.Priority),
		Drops:   true,
	}
	switch {
	case c.Table == panicTable:
		out.What = "drops everything, since firewalld is in panic mode or just reloads"
		out.Mend = "firewall-cmd --panic-off"
	case c.Owned:
		out.What += "; its table belongs to a program that runs, and nobody else can change it"
		out.Mend = "have that program put this first:\n" + lines(lacks, accept.statement)
	case c.Hook == Prerouting && c.Priority <= conntrackPriority:
		out.Mend = fmt.Sprintf("nft 'chain %s { policy accept; }'", c) + elsewhere
	default:
		out.Mend = lines(lacks, func(a accept) string { return fmt.Sprintf("nft insert rule %s '%s'", c, a.statement()) }) + elsewhere
	}
	return []Conflict{out}
}

// elsewhere goes with commands of nft, which last until the next start of the host.
const elsewhere = "\n# and the same in the file that its rules come from, mostly /etc/nftables.conf"

// String returns the chain as nft names it.
func (c NFTChain) String() string { return c.Family + " " + c.Table + " " + c.Name }

// missing returns the accepts that a chain lacks.
func missing(wanted []accept, lets []Let) []accept {
	return slices.DeleteFunc(wanted, func(a accept) bool { return slices.Contains(lets, a.let) })
}

func lines(accepts []accept, line func(accept) string) string {
	var out []string
	for _, a := range accepts {
		out = append(out, line(a))
	}
	return strings.Join(out, "\n")
}

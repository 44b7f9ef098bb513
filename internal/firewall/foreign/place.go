package foreign

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/xtables"
)

// dockerUser is the chain that Docker leaves to others. It is called by FORWARD.
const dockerUser xtables.ChainName = "DOCKER-USER"

// Parts of names of chains that are neither the kernel's nor for our accepts.
const (
	ownPrefix   = "ZWRM-"  // the dataplane iptables
	zonesSuffix = "_ZONES" // firewalld, when it uses iptables
)

// builtin is a chain of the kernel in the table filter.
type builtin struct {
	chain xtables.ChainName
	hook  Hook
	ufw   xtables.ChainName // which ufw has it call
}

func builtins() []builtin {
	return []builtin{
		{"FORWARD", Forward, "ufw-before-forward"},
		{"INPUT", Input, "ufw-before-input"},
		{"OUTPUT", Output, "ufw-before-output"},
	}
}

// rules are those of ours that a chain begins with.
type rules struct {
	chain xtables.ChainName
	specs []string
}

// plan returns what the table filter should hold of ours. Beside ufw what stands
// remains: a reload sets policies to accept, and a second later to drop again.
func (w Want) plan(filter *xtables.Table) []rules {
	if !w.Accepts || filter == nil {
		return nil
	}
	var plan []rules
	for _, b := range builtins() {
		r := rules{chain: place(filter, b)}
		stays := ufwThere(filter, b) && slices.ContainsFunc(filter.Chains[r.chain], ours)
		if !drops(filter, b.chain) && !stays {
			continue
		}
		for _, a := range w.accepts(b.hook) {
			r.specs = append(r.specs, a.spec())
		}
		plan = append(plan, r)
	}
	return plan
}

// place returns the chain that accepts go to.
func place(filter *xtables.Table, b builtin) xtables.ChainName {
	if b.hook != Forward || filter.Policies[dockerUser] == "" {
		return b.chain
	}
	for _, spec := range filter.Chains[b.chain] {
		switch target := always(spec); target {
		case "ACCEPT", "DROP", "REJECT":
			return b.chain // what stands behind it is never asked
		case string(dockerUser):
			return dockerUser
		}
	}
	return b.chain
}

// drops reports whether a chain of the kernel drops what none of its rules is about:
// by its policy, or by a last rule.
func drops(t *xtables.Table, chain xtables.ChainName) bool { return end(t, chain) != "" }

// policyDrop is what drops in a chain without a last rule that does.
const policyDrop = "policy DROP"

// end returns what drops in the end, policyDrop or a rule; "" if nothing does. That
// firewalld does, by a rule behind its zones, is between us and firewalld.
func end(t *xtables.Table, chain xtables.ChainName) string {
	for _, spec := range t.Chains[chain] {
		switch target := always(spec); {
		case target == "ACCEPT", strings.HasSuffix(target, zonesSuffix):
			return ""
		case target == "DROP", target == "REJECT":
			return spec
		}
	}
	if t.Policies[chain] == "DROP" {
		return policyDrop
	}
	return ""
}

// ufwThere reports whether ufw is there, active or not. It leaves the calls of these
// chains when it is disabled.
func ufwThere(filter *xtables.Table, b builtin) bool {
	return slices.ContainsFunc(filter.Chains[b.chain], func(spec string) bool { return always(spec) == string(b.ufw) })
}

// always returns the target of a rule that matches every packet, and "" of others. A
// host may have thousands of those.
func always(spec string) string {
	if strings.HasPrefix(spec, "-m comment ") {
		const text = `^-m comment --comment (?:"(?:[^"\\]|\\.)*"|[^" ]\S*) `
		spec = regexp.MustCompile(text).ReplaceAllString(spec, "")
	}
	words := strings.Fields(spec)
	if len(words) < 2 || words[0] != "-j" && words[0] != "-g" {
		return ""
	}
	return words[1]
}

// ours reports whether a rule is an accept of ours, of whatever version of ours or of
// iptables: one that is not known again would be made anew with each repair.
func ours(spec string) bool {
	return strings.HasSuffix(spec, " -j ACCEPT") && strings.Contains(spec, "-m devgroup ") && comment(spec) != ""
}

// comment returns what the comment of a rule of ours says, and "" of others. It has a
// space, so it stands in quotes.
func comment(spec string) Let {
	_, text, found := strings.Cut(spec, `--comment "`+mark)
	text, _, ended := strings.Cut(text, `"`)
	if !found || !ended {
		return ""
	}
	return Let(text)
}

// differences compares the plan with what there is.
func differences(plan []rules, filter *xtables.Table) []firewall.Difference {
	var out []firewall.Difference
	for _, name := range chains(plan, filter) {
		wanted, found := wantedIn(plan, name), foundIn(filter, name)
		for i, spec := range wanted {
			at := slices.IndexFunc(found, func(f standing) bool { return f.spec == spec })
			switch {
			case at < 0:
				out = append(out, difference(name, i+1, spec, "missing"))
				continue
			case found[at].number != i+1:
				out = append(out, difference(name, i+1, spec, fmt.Sprintf("as rule %d", found[at].number)))
			}
			found = slices.Delete(found, at, at+1)
		}
		for _, f := range found {
			out = append(out, difference(name, f.number, "none", f.spec))
		}
	}
	return out
}

func difference(chain xtables.ChainName, number int, wanted, found string) firewall.Difference {
	return firewall.Difference{Object: fmt.Sprintf("iptables filter %s rule %d", chain, number), Wanted: wanted, Found: found}
}

// script returns the input of iptables-restore that brings the table to the plan; "" if
// it is there. It is one transaction, in which accepts never lack. A rule is deleted by
// what it says and not by its number, since others may change the chain between our
// reading and our writing.
func script(plan []rules, filter *xtables.Table) string {
	var out strings.Builder
	for _, name := range chains(plan, filter) {
		wanted, found := wantedIn(plan, name), foundIn(filter, name)
		if inPlace(wanted, found) {
			continue
		}
		for _, f := range found {
			fmt.Fprintf(&out, "-D %s %s\n", name, f.spec)
		}
		for i, spec := range wanted {
			fmt.Fprintf(&out, "-I %s %d %s\n", name, i+1, spec)
		}
	}
	if out.Len() == 0 {
		return ""
	}
	return "*filter\n" + out.String() + "COMMIT\n"
}

// inPlace reports whether exactly the wanted rules are there, first in their chain.
func inPlace(wanted []string, found []standing) bool {
	return slices.EqualFunc(wanted, found, func(w string, f standing) bool { return w == f.spec }) &&
		(len(found) == 0 || found[len(found)-1].number == len(found))
}

// chains returns the chains that hold rules of ours or should.
func chains(plan []rules, filter *xtables.Table) []xtables.ChainName {
	var names []xtables.ChainName
	for _, r := range plan {
		names = append(names, r.chain)
	}
	if filter == nil {
		return names
	}
	for _, name := range filter.Order {
		if !slices.Contains(names, name) && len(foundIn(filter, name)) > 0 {
			names = append(names, name)
		}
	}
	return names
}

func wantedIn(plan []rules, name xtables.ChainName) []string {
	for _, r := range plan {
		if r.chain == name {
			return r.specs
		}
	}
	return nil
}

// standing is a rule of ours that was found.
type standing struct {
	number int // from 1
	spec   string
}

func foundIn(filter *xtables.Table, name xtables.ChainName) []standing {
	if filter == nil || strings.HasPrefix(string(name), ownPrefix) {
		return nil
	}
	var found []standing
	for i, spec := range filter.Chains[name] {
		if ours(spec) {
			found = append(found, standing{i + 1, spec})
		}
	}
	return found
}

package iptables

import (
	"fmt"
	"slices"

	"zwrm/internal/firewall"
)

// The words for what is not there.
const (
	missing = "missing"
	none    = "none"
)

// differences compares what one family should hold with what it holds. tool is
// "iptables" or "ip6tables".
func differences(tool string, want []table, found snapshot) []firewall.Difference {
	var out []firewall.Difference
	for _, t := range want {
		d := differ{object: tool + " " + string(t.name), want: t, found: found[t.name]}
		d.chains()
		d.hooks()
		d.leftovers()
		out = append(out, d.out...)
	}
	return out
}

type differ struct {
	object string
	want   table
	found  *contents
	out    []firewall.Difference
}

func (d *differ) add(object ChainName, number int, wanted, found string) {
	name := d.object + " " + string(object)
	if number > 0 {
		name += fmt.Sprintf(" rule %d", number)
	}
	d.out = append(d.out, firewall.Difference{Object: name, Wanted: wanted, Found: found})
}

func (d *differ) chains() {
	for _, c := range d.want.chains {
		found, ok := d.found.chains[c.name]
		if !ok {
			d.add(c.name, 0, size(len(c.rules)), missing)
			continue
		}
		wanted := inOrderOf(c.rules, found)
		for _, e := range align(wanted, found) {
			switch {
			case e.found == 0:
				d.add(c.name, e.wanted, wanted[e.wanted-1], missing)
			case e.wanted == 0:
				d.add(c.name, e.found, none, found[e.found-1])
			case e.moved:
				d.add(c.name, e.wanted, wanted[e.wanted-1], fmt.Sprintf("as rule %d", e.found))
			default:
				d.add(c.name, e.found, wanted[e.wanted-1], found[e.found-1])
			}
		}
	}
}

// inOrderOf returns the rules with those of apps in the order in which they are
// found: all of them accept, so none decides before another.
func inOrderOf(rules []rule, found []string) []string {
	at := make(map[string]int, len(found))
	for i, spec := range found {
		if _, seen := at[spec]; !seen {
			at[spec] = i
		}
	}
	var apps, specs []string
	for _, r := range rules {
		if r.app {
			apps = append(apps, r.spec)
		}
	}
	slices.SortStableFunc(apps, func(a, b string) int { return position(at, a) - position(at, b) })
	for _, r := range rules {
		if r.app {
			specs, apps = append(specs, apps[0]), apps[1:]
		} else {
			specs = append(specs, r.spec)
		}
	}
	return specs
}

// position returns where the rule was found; those that were not come first,
// where they will be added.
func position(at map[string]int, spec string) int {
	if i, ok := at[spec]; ok {
		return i
	}
	return -1
}

// hooks compares the jumps to our chains. One that is not the first rule of its
// chain is a difference: what stands before it may let a packet through.
func (d *differ) hooks() {
	jumps := d.found.jumps()
	for _, c := range d.want.chains {
		if c.hook == "" {
			continue
		}
		here := func(h hooked) bool { return h.chain == c.hook && h.spec == c.jump() }
		switch i := slices.IndexFunc(jumps, here); {
		case i < 0:
			d.add(c.hook, 1, c.jump(), missing)
		case jumps[i].number > 1:
			d.add(c.hook, 1, c.jump(), fmt.Sprintf("as rule %d", jumps[i].number))
			jumps = slices.Delete(jumps, i, i+1)
		default:
			jumps = slices.Delete(jumps, i, i+1)
		}
	}
	for _, h := range jumps {
		d.add(h.chain, h.number, none, h.spec)
	}
}

// leftovers finds chains of ours that should not be there.
func (d *differ) leftovers() {
	for _, name := range d.found.ours() {
		if d.want.has(name) {
			continue
		}
		rules := len(d.found.chains[name])
		if rules == 0 && d.found.user(name) != "" {
			continue // empty, and a foreign rule keeps it there
		}
		d.add(name, 0, none, size(rules))
	}
}

// size describes a whole chain.
func size(rules int) string {
	if rules == 1 {
		return "chain of 1 rule"
	}
	return fmt.Sprintf("chain of %d rules", rules)
}

package iptables

import (
	"slices"
	"sort"
)

// edit is one rule that is not as it should be. Numbers count from 1; 0 is none:
// without found the rule is missing, without wanted it should not be there, with
// both it is another rule or, if moved, the same one at another place.
type edit struct {
	wanted, found int
	moved         bool
}

// align compares two ordered lists of rules and returns the rules that explain
// the difference: all but those in the longest order that both share. It takes
// n log n steps, since a host may hold thousands of rules.
func align(wanted, found []string) []edit {
	missing := map[string][]int{} // wanted numbers by text, in order
	for i, spec := range wanted {
		missing[spec] = append(missing[spec], i+1)
	}
	var same []edit
	var extra []int
	for j, spec := range found {
		numbers := missing[spec]
		if len(numbers) == 0 {
			extra = append(extra, j+1)
			continue
		}
		same = append(same, edit{wanted: numbers[0], found: j + 1})
		missing[spec] = numbers[1:]
	}
	var absent []int
	for _, numbers := range missing {
		absent = append(absent, numbers...)
	}
	slices.Sort(absent)
	kept := longestOrder(same)
	return append(moves(same, kept), pair(absent, extra, kept)...)
}

// moves returns the rules that are there but not in order.
func moves(same, kept []edit) []edit {
	var edits []edit
	for _, e := range same {
		if len(kept) > 0 && kept[0] == e {
			kept = kept[1:]
			continue
		}
		e.moved = true
		edits = append(edits, e)
	}
	return edits
}

// pair reads a missing and a surplus rule at the same place, that is behind the
// same rule that was kept, as one rule that was changed.
func pair(absent, extra []int, kept []edit) []edit {
	surplus := map[int][]int{} // found numbers by how many kept rules stand before
	for _, f := range extra {
		at := sort.Search(len(kept), func(i int) bool { return kept[i].found > f })
		surplus[at] = append(surplus[at], f)
	}
	var edits []edit
	for _, w := range absent {
		e := edit{wanted: w}
		at := sort.Search(len(kept), func(i int) bool { return kept[i].wanted > w })
		if there := surplus[at]; len(there) > 0 {
			e.found, surplus[at] = there[0], there[1:]
		}
		edits = append(edits, e)
	}
	var rest []int
	for _, there := range surplus {
		rest = append(rest, there...)
	}
	slices.Sort(rest)
	for _, f := range rest {
		edits = append(edits, edit{found: f})
	}
	return edits
}

// longestOrder returns a longest run of edits, which are ordered by found, in
// which wanted rises too (patience sorting).
func longestOrder(edits []edit) []edit {
	var tops []int // tops[n]: the edit with the least wanted that ends a run of n+1
	previous := make([]int, len(edits))
	for i, e := range edits {
		n := sort.Search(len(tops), func(n int) bool { return edits[tops[n]].wanted >= e.wanted })
		previous[i] = -1
		if n > 0 {
			previous[i] = tops[n-1]
		}
		if n == len(tops) {
			tops = append(tops, i)
		} else {
			tops[n] = i
		}
	}
	var run []edit
	if len(tops) > 0 {
		for i := tops[len(tops)-1]; i >= 0; i = previous[i] {
			run = append(run, edits[i])
		}
	}
	slices.Reverse(run)
	return run
}

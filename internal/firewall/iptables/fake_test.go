package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"zwrm/internal/firewall/xtables"
)

// fakeKernel is a runner with rules in memory: iptables-save prints them and
// iptables-restore --noflush changes them, a table at once or not at all. It
// takes every rule as text, without a look at what it says.
type fakeKernel struct {
	mu       sync.Mutex
	families map[string]snapshot // by "iptables" and "ip6tables"
	refuse   string              // a restore with this text in a rule fails, as it does without kernel support
}

var _ xtables.Runner = (*fakeKernel)(nil)

func newFakeKernel() *fakeKernel {
	empty := func() snapshot {
		s, _ := parse("*raw\n:PREROUTING ACCEPT\n*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n*nat\n:POSTROUTING ACCEPT\n")
		return s
	}
	return &fakeKernel{families: map[string]snapshot{"iptables": empty(), "ip6tables": empty()}}
}

func (k *fakeKernel) Run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return "", err
	}
	program := path.Base(name)
	family, verb, _ := strings.Cut(program, "-")
	if k.families[family] == nil {
		return "", fmt.Errorf("no program %s", program)
	}
	switch {
	case verb == "save":
		return k.families[family].print(), nil
	case verb == "restore" && slices.Equal(args, []string{"--noflush", "-w", "5"}):
		return "", k.restore(k.families[family], stdin)
	case verb == "" && slices.Equal(args, []string{"--version"}):
		return "iptables v0 (fake)\n", nil
	}
	return "", fmt.Errorf("unknown call of %s %s", name, args)
}

func (s snapshot) print() string {
	var out script
	for _, name := range tables() {
		out.line("*%s", name)
		for _, chain := range s[name].order {
			out.line(":%s - [0:0]", chain)
		}
		for _, chain := range s[name].order {
			for _, spec := range s[name].chains[chain] {
				out.line("-A %s %s", chain, spec)
			}
		}
		out.line("COMMIT")
	}
	return out.String()
}

func (k *fakeKernel) restore(s snapshot, input string) error {
	var name TableName
	var next *contents
	for i, line := range strings.Split(strings.TrimSuffix(input, "\n"), "\n") {
		verb, rest, _ := strings.Cut(line, " ")
		switch {
		case strings.HasPrefix(line, "*"):
			name = TableName(line[1:])
			next = &contents{order: slices.Clone(s[name].order), chains: map[ChainName][]string{}}
			for chain, rules := range maps.All(s[name].chains) {
				next.chains[chain] = slices.Clone(rules)
			}
		case verb == "COMMIT":
			s[name] = next
		case k.refuse != "" && strings.Contains(rest, k.refuse):
			return fmt.Errorf("line %d failed", i+1)
		case strings.HasPrefix(verb, ":"):
			chain := ChainName(verb[1:])
			if !slices.Contains(next.order, chain) {
				next.order = append(next.order, chain)
			}
			next.chains[chain] = nil
		default:
			if err := next.change(verb, rest); err != nil {
				return fmt.Errorf("line %d failed: %w", i+1, err)
			}
		}
	}
	return nil
}

// change executes one line such as "-A CHAIN SPEC".
func (t *contents) change(verb, rest string) error {
	word, spec, _ := strings.Cut(rest, " ")
	chain := ChainName(word)
	rules := t.chains[chain]
	if !slices.Contains(t.order, chain) {
		return errors.New("no such chain")
	}
	switch verb {
	case "-A":
		rules = append(rules, spec)
	case "-I":
		number, spec, _ := strings.Cut(spec, " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		rules = slices.Insert(rules, n-1, spec)
	case "-D":
		i := slices.Index(rules, spec)
		if i < 0 {
			return errors.New("no such rule")
		}
		rules = slices.Delete(rules, i, i+1)
	case "-F":
		rules = nil
	case "-X":
		if t.called(chain) || len(rules) > 0 {
			return errors.New("device or resource busy")
		}
		t.order = slices.DeleteFunc(t.order, func(c ChainName) bool { return c == chain })
		delete(t.chains, chain)
		return nil
	default:
		return fmt.Errorf("unknown line %q", verb)
	}
	t.chains[chain] = rules
	if len(rules) > 0 {
		return t.targets(rules)
	}
	return nil
}

// targets checks that chains which rules call exist.
func (t *contents) targets(rules []string) error {
	for _, spec := range rules {
		if to, ok := xtables.Calls(spec); ok && named(to) && !slices.Contains(t.order, to) {
			return fmt.Errorf("no chain %s", to)
		}
	}
	return nil
}

func (t *contents) called(chain ChainName) bool {
	for _, rules := range t.chains {
		for _, spec := range rules {
			if to, ok := xtables.Calls(spec); ok && to == chain {
				return true
			}
		}
	}
	return false
}

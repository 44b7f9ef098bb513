package foreign

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"zwrm/internal/firewall/xtables"
	"zwrm/internal/model"
)

// kernel is what a test runs on: the fake, or the real one through one variant of the
// programs.
type kernel struct {
	runner  xtables.Runner
	variant xtables.Variant
	before  func() // called before each restore; nil: nothing

	mu    sync.Mutex
	calls []string
}

// Run remembers which programs were started.
func (k *kernel) Run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	k.mu.Lock()
	k.calls = append(k.calls, strings.ReplaceAll(path.Base(name), string(k.variant), ""))
	k.mu.Unlock()
	if k.before != nil && strings.HasSuffix(name, "-restore") {
		k.before()
	}
	return k.runner.Run(ctx, stdin, name, args...)
}

// take returns the programs started since the last call of take.
func (k *kernel) take() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	calls := strings.Join(k.calls, " ")
	k.calls = nil
	return calls
}

// onEachKernel runs a test on the fake and on the real kernel by both variants.
func onEachKernel(t *testing.T, test func(t *testing.T, k *kernel)) {
	t.Run("fake", func(t *testing.T) { test(t, newFake()) })
	for _, variant := range []xtables.Variant{xtables.NFT, xtables.Legacy} {
		t.Run(string(variant[1:]), func(t *testing.T) {
			k := &kernel{runner: &xtables.Processes{}, variant: variant}
			t.Cleanup(func() { k.load(t, empty) })
			test(t, k)
		})
	}
}

// empty is a host without rules.
const empty = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"

// look finds all programs, for the fake.
func look(name string) (string, error) { return "/sbin/" + name, nil }

func (k *kernel) system() system {
	sys := system{look: exec.LookPath, runner: k, variant: k.variant,
		legacyTables: func() (string, error) { return "", nil },
		nftChains:    func() ([]NFTChain, error) { return nil, nil }}
	if k.variant == "" {
		sys.look = look
	}
	return sys
}

// want is what tests ask for unless they are about that.
func want() Want {
	return Want{External: "eth0", HostAccess: []model.Service{{Protocol: model.TCP, Port: 9000}}, Accepts: true}
}

func (k *kernel) open(t *testing.T, w Want) *Firewalls {
	t.Helper()
	f, err := open(t.Context(), w, k.system())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// load replaces all rules, as after a start of the host.
func (k *kernel) load(t *testing.T, save string) {
	t.Helper()
	k.restore(t, save)
}

// change changes the table filter as somebody else on the host does.
func (k *kernel) change(t *testing.T, lines ...string) {
	t.Helper()
	k.restore(t, "*filter\n"+strings.Join(lines, "\n")+"\nCOMMIT\n", "--noflush")
}

func (k *kernel) restore(t *testing.T, input string, options ...string) {
	t.Helper()
	_, err := k.runner.Run(context.WithoutCancel(t.Context()), input, "iptables"+string(k.variant)+"-restore", options...)
	if err != nil {
		t.Fatal(err)
	}
}

// save returns the table filter without what a real program adds to it.
func (k *kernel) save(t *testing.T) string {
	t.Helper()
	text, err := k.runner.Run(t.Context(), "", "iptables"+string(k.variant)+"-save")
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(text, "")
	return regexp.MustCompile(`\[\d+:\d+\]`).ReplaceAllString(text, "[0:0]")
}

// host returns what iptables-save printed on a host with the named programs, changed
// by more lines.
func host(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".save")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fakeKernel is a runner with the table filter in memory. It takes every rule as text,
// without a look at what it says.
type fakeKernel struct {
	mu    sync.Mutex
	table *xtables.Table
}

func newFake() *kernel {
	return &kernel{runner: &fakeKernel{table: xtables.Parse(empty)[xtables.Filter]}}
}

func (k *fakeKernel) Run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return "", err
	}
	switch path.Base(name) {
	case "iptables":
		return "iptables v0 (nf_tables)\n", nil
	case "iptables-save":
		return k.print(), nil
	case "iptables-restore":
		return "", k.restore(stdin, slices.Contains(args, "--noflush"))
	}
	return "", fmt.Errorf("unknown call of %s %s", name, args)
}

func (k *fakeKernel) print() string {
	var out strings.Builder
	out.WriteString("*filter\n")
	for _, chain := range k.table.Order {
		fmt.Fprintf(&out, ":%s %s [0:0]\n", chain, k.table.Policies[chain])
	}
	for _, chain := range k.table.Order {
		for _, spec := range k.table.Chains[chain] {
			fmt.Fprintf(&out, "-A %s %s\n", chain, spec)
		}
	}
	out.WriteString("COMMIT\n")
	return out.String()
}

// restore changes the table at once or not at all.
func (k *fakeKernel) restore(input string, noflush bool) error {
	next := xtables.NewTable()
	if noflush {
		next.Order = slices.Clone(k.table.Order)
		maps.Copy(next.Policies, k.table.Policies)
		for chain, rules := range k.table.Chains {
			next.Chains[chain] = slices.Clone(rules)
		}
	}
	for line := range strings.Lines(input) {
		verb, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch {
		case strings.HasPrefix(verb, ":"):
			chain := xtables.ChainName(verb[1:])
			if next.Policies[chain] == "" {
				next.Order = append(next.Order, chain)
			}
			next.Policies[chain], _, _ = strings.Cut(rest, " ")
			next.Chains[chain] = nil
		case strings.HasPrefix(verb, "-"):
			if err := change(next, verb, rest); err != nil {
				return fmt.Errorf("line %q failed: %w", line, err)
			}
		}
	}
	k.table = next
	return nil
}

// change executes one line such as "-A CHAIN SPEC".
func change(t *xtables.Table, verb, rest string) error {
	word, spec, _ := strings.Cut(rest, " ")
	chain := xtables.ChainName(word)
	rules := t.Chains[chain]
	if t.Policies[chain] == "" {
		return errors.New("no such chain")
	}
	switch verb {
	case "-A":
		rules = append(rules, spec)
	case "-I":
		number, spec, _ := strings.Cut(spec, " ")
		n, err := strconv.Atoi(number)
		if err != nil || n > len(rules)+1 {
			return errors.New("no such place")
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
	default:
		return errors.New("unknown")
	}
	t.Chains[chain] = rules
	return nil
}

// changeChains is change for lines that may set a policy, which --noflush would take
// for a wish to empty the chain.
func (k *kernel) changeChains(t *testing.T, lines []string) {
	t.Helper()
	if !strings.HasPrefix(lines[0], ":") {
		k.change(t, lines...)
		return
	}
	chain, policy, _ := strings.Cut(lines[0][1:], " ")
	save := regexp.MustCompile(`(?m)^:`+chain+` \S+`).ReplaceAllString(k.save(t), ":"+chain+" "+strings.Fields(policy)[0])
	k.load(t, save)
}

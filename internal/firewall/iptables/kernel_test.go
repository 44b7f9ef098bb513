package iptables

import (
	"context"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/xtables"
)

// kernel is what a test runs on: the fake, or the real one through one variant of
// the programs.
type kernel struct {
	*recorder
	sys system
}

// recorder is a runner that remembers which programs it started.
type recorder struct {
	xtables.Runner
	mu    sync.Mutex
	calls []string
	fail  func(program string) error // nil: nothing fails
}

func (r *recorder) Run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	r.mu.Lock()
	r.calls = append(r.calls, path.Base(name))
	fail := r.fail
	r.mu.Unlock()
	if fail != nil {
		if err := fail(path.Base(name)); err != nil {
			return "", err
		}
	}
	return r.Runner.Run(ctx, stdin, name, args...)
}

// take returns the programs started since the last call of take, as in
// "iptables-save ip6tables-save", without the variant in their names.
func (k *kernel) take() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	calls := strings.ReplaceAll(strings.Join(k.calls, " "), string(k.sys.variant), "")
	k.calls = nil
	return calls
}

// onEachKernel runs a test on the fake and on the real kernel by both variants.
// The kernel has the rules of others in every table.
func onEachKernel(t *testing.T, test func(t *testing.T, k *kernel)) {
	t.Run("fake", func(t *testing.T) {
		k := newFake()
		k.others(t)
		test(t, k)
	})
	for _, variant := range []xtables.Variant{xtables.NFT, xtables.Legacy} {
		t.Run(string(variant[1:]), func(t *testing.T) {
			k := newKernel(system{look: exec.LookPath, runner: &xtables.Processes{}, variant: variant})
			t.Cleanup(func() { k.flush(t) })
			k.flush(t)
			k.others(t)
			k.restore(t, "iptables", "*mangle\n-A POSTROUTING -o eth9 -j TTL --ttl-set 3\nCOMMIT\n")
			test(t, k)
		})
	}
}

// newFake returns a fake kernel without rules.
func newFake() *kernel {
	return newKernel(system{look: func(name string) (string, error) { return "/sbin/" + name, nil }, runner: newFakeKernel()})
}

func newKernel(sys system) *kernel {
	k := &kernel{recorder: &recorder{Runner: sys.runner}, sys: sys}
	k.sys.ipv6 = true
	k.sys.runner = k.recorder
	return k
}

// others puts rules of a Docker-like program into all tables.
func (k *kernel) others(t *testing.T) {
	for _, tool := range []string{"iptables", "ip6tables"} {
		k.restore(t, tool, `*raw
-A PREROUTING -i eth9 -j ACCEPT
COMMIT
*filter
:DOCKER - [0:0]
-A INPUT -p tcp -m tcp --dport 22 -m comment --comment "ssh for zwrm: all" -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 -j ACCEPT
-A DOCKER -i docker0 -o eth9 -j ACCEPT
COMMIT
*nat
:DOCKER - [0:0]
-A POSTROUTING -o eth9 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
COMMIT
`)
	}
}

func (k *kernel) open(t *testing.T) *Dataplane {
	t.Helper()
	d, err := open(t.Context(), k.sys)
	if err != nil {
		t.Fatal(err)
	}
	k.take()
	return d
}

// applied opens a Dataplane and applies rules.
func (k *kernel) applied(t *testing.T, rules firewall.Ruleset) *Dataplane {
	t.Helper()
	d := k.open(t)
	if err := d.Apply(t.Context(), rules); err != nil {
		t.Fatal(err)
	}
	k.take()
	return d
}

// restore changes rules as somebody else on the host does.
func (k *kernel) restore(t *testing.T, tool, input string) {
	t.Helper()
	if _, err := k.Runner.Run(t.Context(), input, tool+string(k.sys.variant)+"-restore", "--noflush", "-w", "5"); err != nil {
		t.Fatal(err)
	}
}

// flush empties every table and deletes every chain.
func (k *kernel) flush(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"iptables", "ip6tables"} {
		_, err := k.Runner.Run(context.Background(), "*raw\nCOMMIT\n*mangle\nCOMMIT\n*filter\nCOMMIT\n*nat\nCOMMIT\n", tool+string(k.sys.variant)+"-restore")
		if err != nil {
			t.Fatal(err)
		}
	}
}

// save returns all rules of a family in the order that the tool prints them,
// without comments on time and version and without the counters of policies.
func (k *kernel) save(t *testing.T, tool string) string {
	t.Helper()
	text, err := k.Runner.Run(t.Context(), "", tool+string(k.sys.variant)+"-save")
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`\[\d+:\d+\]`).ReplaceAllString(text, "[0:0]")
	return strings.Join(slices.DeleteFunc(strings.SplitAfter(text, "\n"), func(line string) bool {
		return strings.HasPrefix(line, "#")
	}), "")
}

// saveBoth returns the rules of both families.
func (k *kernel) saveBoth(t *testing.T) string {
	t.Helper()
	return k.save(t, "iptables") + k.save(t, "ip6tables")
}

// grep returns the lines of text that contain, or do not contain, a chain of ours.
func grep(text string, ours bool) string {
	return strings.Join(slices.DeleteFunc(strings.SplitAfter(text, "\n"), func(line string) bool {
		return strings.Contains(line, chainPrefix) != ours
	}), "")
}

func mustDiff(t *testing.T, d *Dataplane, want firewall.Ruleset) string {
	t.Helper()
	differences, err := d.Diff(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	return diffText(differences)
}

func mustDump(t *testing.T, d *Dataplane) string {
	t.Helper()
	text, err := d.Dump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

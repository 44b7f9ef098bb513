package foreign

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"zwrm/internal/firewall/xtables"
)

// TestLife: Apply makes what is missing and nothing more, finds it made, and Remove
// leaves the host as it was.
func TestLife(t *testing.T) {
	for _, name := range []string{"docker", "ufw", "docker_ufw", "ufw_off"} {
		t.Run(name, func(t *testing.T) {
			onEachKernel(t, func(t *testing.T, k *kernel) {
				k.load(t, host(t, name))
				before := k.save(t)
				f := k.open(t, want())
				needed := 0
				for _, r := range f.want.plan(xtables.Parse(before)[xtables.Filter]) {
					needed += len(r.specs)
				}
				if got := diff(t, f); strings.Count(got, "found missing\n") != needed {
					t.Errorf("%d accepts are needed; differences at first:\n%s", needed, got)
				}
				apply(t, f)
				after := k.save(t)
				if strings.Count(after, "zwrm: ") != needed || without(after) != before {
					t.Errorf("rules are\n%s, were\n%s", after, before)
				}
				k.take()
				apply(t, f)
				if got := k.take(); got != "iptables-save" {
					t.Errorf("a second time it runs %q", got)
				}
				if got := diff(t, f); got != "" {
					t.Errorf("differences after Apply:\n%s", got)
				}
				if err := f.Remove(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := k.save(t); got != before {
					t.Errorf("after Remove rules are\n%s, were\n%s", got, before)
				}
			})
		})
	}
}

// TestRules: what the rules say, and where they stand.
func TestRules(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		k.load(t, host(t, "docker_ufw"))
		apply(t, k.open(t, want()))
		var rules strings.Builder
		for line := range strings.Lines(k.save(t)) {
			if strings.Contains(line, "zwrm") {
				rules.WriteString(line)
			}
		}
		compareGolden(t, "rules.txt", rules.String())
	})
}

// TestDrift: Diff names each thing that is not as it should be, Apply mends it and
// leaves the rules of others as they are.
func TestDrift(t *testing.T) {
	older := strings.Replace(ruleInternet, "internet", "out", 1)
	tests := []struct {
		name   string
		change []string
		want   []string
	}{
		{"removed", []string{"-D DOCKER-USER " + ruleKnown}, []string{
			"DOCKER-USER rule 2: wanted " + ruleKnown + ", found missing",
			"DOCKER-USER rule 3: wanted " + rulePeers + ", found as rule 2"}},
		{"flushed by somebody", []string{"-F DOCKER-USER", "-A DOCKER-USER -j RETURN"}, []string{
			"DOCKER-USER rule 1: wanted " + ruleInternet + ", found missing",
			"DOCKER-USER rule 2: wanted " + ruleKnown + ", found missing",
			"DOCKER-USER rule 3: wanted " + rulePeers + ", found missing"}},
		{"twice", []string{"-A DOCKER-USER " + ruleKnown}, []string{"DOCKER-USER rule 5: wanted none, found " + ruleKnown}},
		{"in another chain", []string{"-I DOCKER 1 " + rulePeers}, []string{"DOCKER rule 1: wanted none, found " + rulePeers}},
		{"of another version", []string{"-I FORWARD 2 " + older}, []string{"FORWARD rule 2: wanted none, found " + older}},
		{"behind a rule of somebody", []string{"-I DOCKER-USER 1 -i eth0 -j DROP"}, []string{
			"DOCKER-USER rule 1: wanted " + ruleInternet + ", found as rule 2",
			"DOCKER-USER rule 2: wanted " + ruleKnown + ", found as rule 3",
			"DOCKER-USER rule 3: wanted " + rulePeers + ", found as rule 4"}},
		{"chain no longer called", []string{"-D FORWARD -j DOCKER-USER"}, []string{
			"FORWARD rule 1: wanted " + ruleInternet + ", found missing",
			"FORWARD rule 2: wanted " + ruleKnown + ", found missing",
			"FORWARD rule 3: wanted " + rulePeers + ", found missing",
			"DOCKER-USER rule 1: wanted none, found " + ruleInternet,
			"DOCKER-USER rule 2: wanted none, found " + ruleKnown,
			"DOCKER-USER rule 3: wanted none, found " + rulePeers}},
		{"not needed any more", []string{":FORWARD ACCEPT [0:0]"}, []string{
			"DOCKER-USER rule 1: wanted none, found " + ruleInternet,
			"DOCKER-USER rule 2: wanted none, found " + ruleKnown,
			"DOCKER-USER rule 3: wanted none, found " + rulePeers}},
		{"not ours", []string{
			"-I FORWARD 1 -i eth0 -m comment --comment \"ssh for zwrm: all\" -j ACCEPT",
			"-I DOCKER 1 -i eth0 -m comment --comment \"zwrm: a note of the admin\" -j ACCEPT",
			"-I DOCKER 1 -m devgroup --src-group 0x5a000000/0xff000000 -j ACCEPT"}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onEachKernel(t, func(t *testing.T, k *kernel) {
				k.load(t, host(t, "docker"))
				f := k.open(t, want())
				apply(t, f)
				k.changeChains(t, test.change)
				others := without(k.save(t))
				var lines strings.Builder
				for _, line := range test.want {
					lines.WriteString("iptables filter " + line + "\n")
				}
				if got := diff(t, f); got != lines.String() {
					t.Errorf("differences\n%s, want\n%s", got, lines.String())
				}
				apply(t, f)
				if got := diff(t, f); got != "" {
					t.Errorf("differences after Apply:\n%s", got)
				}
				if got := without(k.save(t)); got != others {
					t.Errorf("rules of others are\n%s, were\n%s", got, others)
				}
			})
		})
	}
}

// TestOwnChains: the rules of the dataplane iptables say the same, and are not touched.
func TestOwnChains(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		k.load(t, host(t, "docker"))
		k.change(t, ":ZWRM-FORWARD - [0:0]", "-A ZWRM-FORWARD "+ruleInternet, `-I FORWARD 1 -m comment --comment "zwrm: hook" -j ZWRM-FORWARD`)
		before := k.save(t)
		k.change(t, "-I DOCKER-USER 1 "+ruleInternet) // left by the other dataplane
		w := want()
		w.Accepts = false
		f := k.open(t, w)
		apply(t, f)
		if got := k.save(t); got != before {
			t.Errorf("rules are\n%s, were\n%s", got, before)
		}
		if err := f.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := k.save(t); got != before {
			t.Errorf("after Remove rules are\n%s, were\n%s", got, before)
		}
	})
}

// TestDockerAppears: what stands in FORWARD moves when Docker brings the better place.
func TestDockerAppears(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		k.load(t, strings.Replace(empty, "FORWARD ACCEPT", "FORWARD DROP", 1))
		f := k.open(t, want())
		apply(t, f)
		if got := strings.Count(k.save(t), "-A FORWARD"); got != 3 {
			t.Fatalf("%d rules in FORWARD", got)
		}
		k.change(t, ":DOCKER-USER - [0:0]", "-A DOCKER-USER -j RETURN", "-I FORWARD 1 -j DOCKER-USER")
		apply(t, f)
		got := k.save(t)
		if strings.Count(got, "-A FORWARD") != 1 || strings.Count(got, "-A DOCKER-USER") != 4 {
			t.Errorf("rules are\n%s", got)
		}
	})
}

// TestUfwReloads: the accepts stand before, in and after each step of a reload.
func TestUfwReloads(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		k.load(t, host(t, "ufw"))
		f := k.open(t, want())
		apply(t, f)
		before := k.save(t)
		for _, step := range []string{"-F ufw-user-input", "-F ufw-before-input", "-F ufw-before-forward", "-F ufw-before-output",
			":INPUT ACCEPT", ":FORWARD ACCEPT", ":OUTPUT ACCEPT", "-A ufw-before-input -i lo -j ACCEPT", ":INPUT DROP", ":FORWARD DROP"} {
			k.changeChains(t, []string{step})
			k.take()
			apply(t, f)
			if got := k.take(); got != "iptables-save" {
				t.Errorf("after %q it runs %q", step, got)
			}
		}
		for line := range strings.Lines(before) {
			if strings.Contains(line, "zwrm") && !strings.Contains(k.save(t), line) {
				t.Errorf("%q is gone", line)
			}
		}
	})
}

// TestOthersWrite: a write that fails, since somebody changed what it names, is made
// anew from what there is now, a few times.
func TestOthersWrite(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		k.load(t, host(t, "docker"))
		f := k.open(t, want())
		apply(t, f)
		k.change(t, "-I DOCKER-USER 1 -i eth9 -j DROP")
		once := true
		k.before = func() {
			if once {
				once = false
				k.change(t, "-D DOCKER-USER "+ruleKnown)
			}
		}
		k.take()
		apply(t, f)
		if got := k.take(); got != "iptables-save iptables-restore iptables-save iptables-restore iptables-save" {
			t.Errorf("it runs %q", got)
		}
		if got := diff(t, f); got != "" {
			t.Errorf("differences:\n%s", got)
		}
		k.before = func() { k.change(t, "-F DOCKER-USER") }
		k.change(t, "-I DOCKER-USER 1 -i eth8 -j DROP")
		k.take()
		if err := f.Remove(t.Context()); err != nil {
			t.Errorf("Remove where everything is gone: %v", err)
		}
		// Whoever takes the accepts away at once is a firewall that we cannot live beside.
		k.before = nil
		real := k.runner
		k.runner = flusher{real}
		err := f.Apply(t.Context())
		k.runner = real
		if err == nil || !strings.Contains(err.Error(), "somebody else changed the rules each of 3 times") {
			t.Errorf("error %v", err)
		}
	})
}

// flusher flushes after each restore.
type flusher struct{ xtables.Runner }

func (f flusher) Run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	out, err := f.Runner.Run(ctx, stdin, name, args...)
	if strings.HasSuffix(name, "-restore") {
		_, flushed := f.Runner.Run(ctx, "*filter\n-F DOCKER-USER\nCOMMIT\n", name, args...)
		err = errors.Join(err, flushed)
	}
	return out, err
}

// TestFaults: what fails is told, and nothing is concluded from it.
func TestFaults(t *testing.T) {
	t.Run("no programs", func(t *testing.T) {
		sys := newFake().system()
		sys.look = func(name string) (string, error) { return "", &exec.Error{Name: name, Err: exec.ErrNotFound} }
		f, err := open(t.Context(), want(), sys)
		if err != nil {
			t.Fatal(err)
		}
		apply(t, f)
		if got := diff(t, f); got != "" {
			t.Errorf("differences %s", got)
		}
		if err := f.Remove(t.Context()); err != nil {
			t.Error(err)
		}
		if s, err := f.Survey(t.Context()); err != nil || s.Command != "" || s.IPTables != nil {
			t.Errorf("survey %+v, error %v", s, err)
		}
	})
	broken := errors.New("broken")
	answers := map[string]string{
		"read the rules of iptables: broken":                "",
		`table "filter" holds a rule made with nft`:         "# Table `filter' is incompatible, use 'nft' tool.\n",
		"have other firewalls let VMs pass: read the rules": "",
	}
	for says, answer := range answers {
		t.Run(says, func(t *testing.T) {
			sys := newFake().system()
			sys.runner = stub(func(string) (string, error) {
				if answer == "" {
					return "", broken
				}
				return answer, nil
			})
			f, err := open(t.Context(), want(), sys)
			if err != nil {
				t.Fatal(err)
			}
			_, diffErr := f.Diff(t.Context())
			text := fmt.Sprint(diffErr, f.Apply(t.Context()), f.Remove(t.Context()))
			if !strings.Contains(text, says) {
				t.Errorf("errors %s", text)
			}
		})
	}
	t.Run("given up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := open(ctx, want(), newFake().system()); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

// stub is a runner that answers by the name of the program.
type stub func(name string) (string, error)

func (s stub) Run(_ context.Context, _, name string, _ ...string) (string, error) { return s(name) }

// TestMade: our own runs of the programs are known by their process id.
func TestMade(t *testing.T) {
	runs := &xtables.Processes{}
	k := &kernel{runner: runs, variant: xtables.NFT}
	sys := k.system()
	sys.runner = runs
	f, err := open(t.Context(), want(), sys)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := runs.Run(t.Context(), "", "sh", "-c", "exit 0"); err != nil {
		t.Fatal(err)
	}
	if f.Made(1) || f.Made(0) {
		t.Error("another process is taken for ours")
	}
	out, err := runs.Run(t.Context(), "", "sh", "-c", "echo $$")
	var pid int
	if _, scanned := fmt.Sscan(out, &pid); err != nil || scanned != nil || !f.Made(pid) {
		t.Errorf("process %q is not known: %v", out, err)
	}
}

func apply(t *testing.T, f *Firewalls) {
	t.Helper()
	if err := f.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// diff returns the differences, one per line.
func diff(t *testing.T, f *Firewalls) string {
	t.Helper()
	all, err := f.Diff(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, d := range all {
		fmt.Fprintf(&out, "%s: wanted %s, found %s\n", d.Object, d.Wanted, d.Found)
	}
	return out.String()
}

// without returns rules without those that are accepts of ours.
func without(save string) string {
	var out strings.Builder
	for line := range strings.Lines(save) {
		if !ours(strings.TrimSuffix(line, "\n")) {
			out.WriteString(line)
		}
	}
	return out.String()
}

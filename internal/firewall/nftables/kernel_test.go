package nftables

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"zwrm/internal/firewall"
	"zwrm/internal/host/nstest"
	"zwrm/internal/model"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// policy returns the rules of a policy with private networking and two apps.
func policy(change func(*firewall.Policy)) firewall.Ruleset {
	p := firewall.Policy{
		Subnet:     netip.MustParsePrefix("172.16.0.0/16"),
		External:   "eth0",
		EgressDeny: []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")},
		Private:    true,
		Apps:       []firewall.App{app("db", 1), app("web", 2)},
	}
	if change != nil {
		change(&p)
	}
	return firewall.Build(p)
}

func app(name model.Name, id model.AppID) firewall.App {
	return firewall.App{Name: name, Group: id.Group()}
}

// manyApps returns n apps whose names are as long as they may be.
func manyApps(n int) []firewall.App {
	apps := make([]firewall.App, n)
	for i := range apps {
		apps[i] = app(model.Name(fmt.Sprintf("%063d", i)), model.AppID(i+1))
	}
	return apps
}

func withApps(apps []firewall.App) firewall.Ruleset {
	return policy(func(p *firewall.Policy) { p.Apps = apps })
}

// onOwnKernel runs a test in a network namespace without any table.
func onOwnKernel(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	nstest.New(t).Do(t, func() { test(t) })
}

// mustOpen opens a Dataplane that the test need not close.
func mustOpen(t *testing.T) *Dataplane {
	t.Helper()
	d, err := Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() }) // some tests did
	return d
}

// applied opens a Dataplane and applies rules.
func applied(t *testing.T, rules firewall.Ruleset) *Dataplane {
	t.Helper()
	d := mustOpen(t)
	mustApply(t, d, rules)
	return d
}

// unprotected makes a Dataplane forget that the kernel has the flags, as on an
// older one, so that the test may damage the table.
func unprotected(t *testing.T) *Dataplane {
	t.Helper()
	d := mustOpen(t)
	d.able.flags = 0
	return d
}

func mustApply(t *testing.T, d *Dataplane, rules firewall.Ruleset) {
	t.Helper()
	if err := d.Apply(t.Context(), rules); err != nil {
		t.Fatal(err)
	}
}

func mustDiff(t *testing.T, d *Dataplane, want firewall.Ruleset) string {
	t.Helper()
	differences, err := d.Diff(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, x := range differences {
		fmt.Fprintf(&b, "%s: wanted %s, found %s\n", x.Object, x.Wanted, x.Found)
	}
	return b.String()
}

func mustDrops(t *testing.T, d *Dataplane) firewall.Drops {
	t.Helper()
	drops, err := d.Drops(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return drops
}

// generation returns the number of the last transaction in the namespace.
func generation(t *testing.T, d *Dataplane) uint32 {
	t.Helper()
	n, err := d.conn.Generation()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// tryNFT runs nft, which is not part of what is tested, as somebody else on the
// host does. It returns what nft says of an error, if there is one.
func tryNFT(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "nft", args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return stderr.String(), err
	}
	return string(out), nil
}

func nft(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tryNFT(t, "", args...)
	if err != nil {
		t.Fatalf("nft %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// list returns the table as nft prints it, without the state of counters, the name
// of the owner, the flags, of which nft 1.0.6 does not know all, and its warning
// that a table with a match of iptables is not to be touched.
func list(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(nft(t, "-s", "list", "table", "inet", "zwrm")) {
		line, _, owned := strings.Cut(line, " # progname ")
		if owned {
			line += "\n"
		}
		if text := strings.TrimSpace(line); text != "" && !strings.HasPrefix(text, "flags") && !strings.HasPrefix(text, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s (go test -update writes it anew):\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

package foreign

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"zwrm/internal/firewall/xtables"
	"zwrm/internal/host/nstest"
)

// TestSurvey: what is there is told, of each variant; iptables is the one of nft.
func TestSurvey(t *testing.T) {
	for _, name := range []string{"docker", "ufw", "docker_ufw"} {
		t.Run(name, func(t *testing.T) {
			nft, legacy := newVariant(t, xtables.NFT), newVariant(t, xtables.Legacy)
			nft.load(t, host(t, name))
			legacy.load(t, empty)
			legacy.change(t, "-A INPUT -i eth9 -j ACCEPT")
			apply(t, nft.open(t, want()))
			compareGolden(t, "survey_"+name+".txt", surveyText(mustSurvey(t)))
		})
	}
}

// TestSurveyChangesNothing: to look makes no table of either variant.
func TestSurveyChangesNothing(t *testing.T) {
	ns := nstest.New(t)
	ns.Do(t, func() {
		s := mustSurvey(t)
		if s.Command != xtables.NFT || len(s.IPTables) != 2 || len(s.IPTables[0].Tables)+len(s.IPTables[1].Tables) != 0 || s.NFT != nil {
			t.Errorf("survey %+v", s)
		}
		names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
		if err != nil || len(names) > 0 {
			t.Errorf("iptables-legacy has tables %q: %v", names, err)
		}
		if rules := command(t, "nft", "list", "ruleset"); rules != "" {
			t.Errorf("nftables has tables\n%s", rules)
		}
	})
}

// TestMend: each conflict is seen on a real kernel, and is gone after the commands that
// mend it.
func TestMend(t *testing.T) {
	tests := []struct {
		name  string
		make  string // commands
		wants []string
	}{
		{"legacy policy", "iptables-legacy -P FORWARD DROP", []string{"iptables-legacy -P FORWARD ACCEPT"}},
		{"legacy rules", "iptables-legacy -P FORWARD DROP\niptables-legacy -A INPUT -i lo -j ACCEPT\niptables-legacy -A INPUT -j REJECT\niptables-legacy -P OUTPUT DROP",
			[]string{"iptables-legacy -I FORWARD -o eth0", "iptables-legacy -I INPUT -p icmp", "iptables-legacy -I OUTPUT"}},
		{"other table", "iptables -t mangle -P FORWARD DROP\niptables -t raw -A PREROUTING -j DROP",
			[]string{"iptables -t mangle -P FORWARD ACCEPT", "iptables -t raw -D PREROUTING -j DROP"}},
		{"rules of ZWRM in the other variant", "iptables-legacy -N ZWRM-FORWARD\niptables-legacy -A ZWRM-FORWARD -m comment --comment \"zwrm: other-app\" -j DROP\n" +
			"iptables-legacy -A FORWARD -m comment --comment \"zwrm: hook\" -j ZWRM-FORWARD", []string{"iptables-legacy-restore"}},
		{"nftables", `nft add table inet guard
nft add chain inet guard in '{ type filter hook input priority 0; policy drop; }'
nft add chain inet guard forth '{ type filter hook forward priority 10; policy drop; }'
nft add chain inet guard out '{ type filter hook output priority 0; policy drop; }'
nft add chain inet guard pre '{ type filter hook prerouting priority mangle; policy drop; }'
nft add chain inet guard first '{ type filter hook prerouting priority raw; policy drop; }'
nft add chain inet guard ok '{ type filter hook forward priority 0; policy accept; }'
nft add chain inet guard plain
nft add table inet zwrm
nft add chain inet zwrm forward '{ type filter hook forward priority 0; policy drop; }'
nft add table ip6 guard
nft add chain ip6 guard forth '{ type filter hook forward priority 0; policy drop; }'
nft add table inet sleeping '{ flags dormant; }'
nft add chain inet sleeping forth '{ type filter hook forward priority 0; policy drop; }'`,
			[]string{"nft insert rule inet guard forth", "nft insert rule inet guard in", "nft insert rule inet guard out", "nft insert rule inet guard pre", "nft 'chain inet guard first"}},
		{"chain of another in a table of iptables", "nft add table ip filter\nnft add chain ip filter forward '{ type filter hook forward priority 0; policy drop; }'",
			[]string{"nft insert rule ip filter forward"}},
		{"native rule in a table of iptables", "iptables -P FORWARD DROP\nnft insert rule ip filter FORWARD fib daddr type local accept",
			[]string{"nft -a list table ip filter", "nft insert rule ip filter FORWARD"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ns := nstest.New(t)
			ns.Do(t, func() {
				command(t, "sh", "-e", "-c", test.make)
				all := Conflicts(mustSurvey(t), want())
				text := conflictText(all)
				for _, other := range []string{"inet zwrm", "ip6 guard", "sleeping", "guard ok", "guard plain"} {
					if strings.Contains(text, other) {
						t.Errorf("%q is blamed in\n%s", other, text)
					}
				}
				for _, w := range test.wants {
					if strings.Count(text, w) == 0 {
						t.Errorf("no %q in\n%s", w, text)
					}
				}
				const byHand = "move that rule"
				for _, c := range all {
					if c.Drops && !strings.HasPrefix(c.Mend, byHand) {
						command(t, "sh", "-e", "-c", c.Mend)
					}
				}
				for _, c := range Conflicts(mustSurvey(t), want()) {
					if c.Drops && !strings.HasPrefix(c.Mend, byHand) {
						t.Errorf("left: %s", conflictText([]Conflict{c}))
					}
				}
			})
		})
	}
}

// TestOwned: a table with an owner is told as such, since no command changes it.
func TestOwned(t *testing.T) {
	ns := nstest.New(t)
	ns.Do(t, func() {
		cmd := exec.Command("nft", "-i")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(in, "add table inet guard { flags owner; }\nadd chain inet guard forth { type filter hook forward priority 0; policy drop; }\nlist tables\n")
		for lines := bufio.NewScanner(out); lines.Scan() && !strings.Contains(lines.Text(), "table inet guard"); {
		}
		s := mustSurvey(t)
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if len(s.NFT) != 1 || !s.NFT[0].Owned {
			t.Errorf("chains %+v", s.NFT)
		}
	})
}

// TestSurveyFaults: what cannot be read is told, and the rest all the same.
func TestSurveyFaults(t *testing.T) {
	broken := errors.New("broken")
	sys := newFake().system()
	sys.legacyTables = func() (string, error) { return "", broken }
	sys.nftChains = func() ([]NFTChain, error) { return nil, broken }
	f, err := open(t.Context(), want(), sys)
	if err != nil {
		t.Fatal(err)
	}
	s, err := f.Survey(t.Context())
	for _, says := range []string{"list the tables of iptables-legacy: broken", "read the chains of nftables: broken"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v lacks %q", err, says)
		}
	}
	if s.Command != xtables.NFT {
		t.Errorf("survey %+v", s)
	}
}

// TestLegacyWithoutTables: programs of iptables-legacy are not even started where the
// kernel has no tables of theirs.
func TestLegacyWithoutTables(t *testing.T) {
	for _, names := range []string{"", "filter\n"} {
		k := newFake()
		sys := k.system()
		sys.legacyTables = func() (string, error) { return names, nil }
		f, err := open(t.Context(), want(), sys)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Survey(t.Context()) // the fake knows no other variants
		if started := strings.Contains(k.take(), "legacy"); started != (names != "") || err == nil {
			t.Errorf("with tables %q it was started: %t; %v", names, started, err)
		}
	}
}

func newVariant(t *testing.T, variant xtables.Variant) *kernel {
	t.Helper()
	k := &kernel{runner: &xtables.Processes{}, variant: variant}
	t.Cleanup(func() { k.load(t, empty) })
	return k
}

// mustSurvey looks at the namespace of the calling thread, as the program does.
func mustSurvey(t *testing.T) Survey {
	t.Helper()
	f, err := Open(t.Context(), want(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := f.Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func surveyText(s Survey) string {
	var out strings.Builder
	fmt.Fprintf(&out, "iptables is iptables%s\n", s.Command)
	for _, p := range s.IPTables {
		fmt.Fprintf(&out, "iptables%s: Docker %t, ufw %t\n", p.Variant, p.Docker, p.Ufw)
		for _, t := range p.Tables {
			fmt.Fprintf(&out, "\ttable %s: %d rules, %d of ours\n", t.Name, t.Rules, t.Ours)
			for _, c := range t.Chains {
				fmt.Fprintf(&out, "\t\t%s %s ends with %q lets %q\n", c.Name, c.Policy, c.End, c.Lets)
			}
		}
	}
	fmt.Fprintf(&out, "nftables: %v\n", s.NFT)
	return out.String()
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

package iptables

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"zwrm/internal/firewall/xtables"
)

// TestOpenLeavesNothing: what the kernel is asked with is gone when it answered.
func TestOpenLeavesNothing(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		before := k.saveBoth(t)
		k.take()
		d, err := open(t.Context(), k.sys)
		if err != nil {
			t.Fatal(err)
		}
		want := "iptables iptables-save ip6tables-save iptables-restore iptables-restore ip6tables-restore ip6tables-restore"
		if got := k.take(); got != want {
			t.Errorf("ran %q, want %q", got, want)
		}
		if got := k.saveBoth(t); got != before {
			t.Errorf("rules are\n%s, were\n%s", got, before)
		}
		if !strings.HasPrefix(d.Version(), "iptables v") {
			t.Errorf("version %q", d.Version())
		}
	})
}

// TestOpenAfterCrash: a zwrmd that was killed while it asked leaves the scratch
// chain. The next one takes it for its own.
func TestOpenAfterCrash(t *testing.T) {
	onEachKernel(t, func(t *testing.T, k *kernel) {
		before := k.saveBoth(t)
		k.restore(t, "iptables", `*raw
:ZWRM-PROBE - [0:0]
-A ZWRM-PROBE -m devgroup --src-group 0x5a000000/0xff000000 -m comment --comment "zwrm: probe" -j DROP
COMMIT
`)
		k.open(t)
		if got := k.saveBoth(t); got != before {
			t.Errorf("rules are\n%s, were\n%s", got, before)
		}
	})
}

// TestProbeAsksTheKernel: rpfilter is for the tables raw and mangle. That is known
// to the kernel and not to the programs, so only a kernel that was asked refuses.
func TestProbeAsksTheKernel(t *testing.T) {
	for _, variant := range []xtables.Variant{xtables.NFT, xtables.Legacy} {
		t.Run(string(variant[1:]), func(t *testing.T) {
			k := newKernel(system{look: exec.LookPath, runner: &xtables.Processes{}, variant: variant})
			t.Cleanup(func() { k.flush(t) })
			d := k.open(t)
			before := k.saveBoth(t)
			impossible := feature{table: Filter, spec: "-m rpfilter --invert " + comment("probe") + " -j DROP"}
			if err := d.try(t.Context(), d.tools[0], impossible); err == nil {
				t.Error("a rule that the kernel refuses was accepted")
			}
			if got := k.saveBoth(t); got != before {
				t.Errorf("rules are\n%s, were\n%s", got, before)
			}
		})
	}
}

func TestOpenNamesTheMissingFeature(t *testing.T) {
	tests := []struct{ refuse, want string }{
		{"devgroup", `use match "devgroup" of iptables: the kernel needs CONFIG_NETFILTER_XT_MATCH_DEVGROUP: line 3 failed`},
		{"rpfilter", `use match "rpfilter" of iptables: the kernel needs CONFIG_IP_NF_MATCH_RPFILTER: line 3 failed`},
		{"comment", `use match "comment" of iptables: the kernel needs CONFIG_NETFILTER_XT_MATCH_COMMENT: line 3 failed`},
		{"conntrack", `use match "conntrack" of iptables: the kernel needs CONFIG_NETFILTER_XT_MATCH_CONNTRACK: line 3 failed`},
		{"addrtype", `use match "addrtype" of iptables: the kernel needs CONFIG_NETFILTER_XT_MATCH_ADDRTYPE: line 3 failed`},
		{"MASQUERADE", `use target "MASQUERADE" of iptables: the kernel needs CONFIG_NETFILTER_XT_TARGET_MASQUERADE: line 3 failed`},
	}
	for _, test := range tests {
		t.Run(test.refuse, func(t *testing.T) {
			fake := newFakeKernel()
			k := newKernel(system{look: func(name string) (string, error) { return name, nil }, runner: fake})
			before := k.saveBoth(t)
			fake.refuse = test.refuse
			if _, err := open(t.Context(), k.sys); err == nil || err.Error() != test.want {
				t.Errorf("error %v\nwant  %s", err, test.want)
			}
			if got := k.saveBoth(t); got != before {
				t.Errorf("rules are\n%s, were\n%s", got, before)
			}
		})
	}
}

// TestOpenWithoutWorkingTool: when nothing works, no feature is blamed for it.
func TestOpenWithoutWorkingTool(t *testing.T) {
	k := newFake()
	k.fail = func(program string) error {
		if program == "iptables-restore" {
			return errors.New("Another app is currently holding the xtables lock")
		}
		return nil
	}
	want := `use table "raw" of iptables: Another app is currently holding the xtables lock`
	if _, err := open(t.Context(), k.sys); err == nil || err.Error() != want {
		t.Errorf("error %v\nwant  %s", err, want)
	}
}

func TestOpenNotRoot(t *testing.T) {
	k := newFake()
	k.sys.uid = 1000
	want := "use iptables: only root may, and this process runs as user 1000"
	if _, err := open(t.Context(), k.sys); err == nil || err.Error() != want {
		t.Errorf("error %v\nwant  %s", err, want)
	}
	if got := k.take(); got != "" {
		t.Errorf("ran %q", got)
	}
}

// TestWithoutIPv6: on a kernel without IPv6 there is nothing to close, and
// ip6tables need not be installed.
func TestWithoutIPv6(t *testing.T) {
	k := newFake()
	k.sys.ipv6 = false
	k.sys.look = func(name string) (string, error) {
		if strings.HasPrefix(name, "ip6") {
			return "", exec.ErrNotFound
		}
		return name, nil
	}
	d, err := open(t.Context(), k.sys)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Preflight(t.Context()), d.Apply(t.Context(), policy(nil)), d.AddApps(t.Context(), app(3, "new"))); err != nil {
		t.Fatal(err)
	}
	if got := mustDiff(t, d, withApps(app(1, "db"), app(2, "web"), app(3, "new"))); got != "" {
		t.Errorf("differences:\n%s", got)
	}
	if err := d.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := k.take(); strings.Contains(got, "ip6tables") {
		t.Errorf("ran %q", got)
	}
}

// TestOpenMissingProgram is about the PATH of a machine.
func TestOpenMissingProgram(t *testing.T) {
	tests := []struct {
		name  string
		files []string
		want  string
	}{
		{"nothing", nil, `find program "iptables": exec: "iptables": executable file not found in $PATH; install the package "iptables" (Debian: apt-get install iptables)`},
		{"no restore", []string{"iptables", "iptables-save"}, `find program "iptables-restore": exec: "iptables-restore": executable file not found in $PATH; install the package "iptables" (Debian: apt-get install iptables)`},
		{"no IPv6", []string{"iptables", "iptables-save", "iptables-restore"}, `find program "ip6tables-save": exec: "ip6tables-save": executable file not found in $PATH; install the package "iptables" (Debian: apt-get install iptables)`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			scripts := map[string]string{}
			for _, name := range test.files {
				scripts[name] = "exit 0"
			}
			pathOf(t, scripts)
			if _, err := Open(t.Context(), nil); err == nil || err.Error() != test.want {
				t.Errorf("error %v\nwant  %s", err, test.want)
			}
		})
	}
}

// TestOpenWithoutDevgroup runs programs that answer as iptables 1.8.9 does on a
// kernel without the match, in both variants.
func TestOpenWithoutDevgroup(t *testing.T) {
	const refusing = `input=$(cat)
n=$(printf '%s\n' "$input" | grep -n devgroup | head -n 1 | cut -d : -f 1)
last=$(printf '%s\n' "$input" | wc -l)
if [ -n "$n" ]; then
`
	tests := []struct{ name, restore, want string }{
		{"nft", refusing + `
	printf 'iptables-restore v1.8.9 (nf_tables): \nline %s: RULE_APPEND failed (No such file or directory): rule in chain ZWRM-PROBE\n' "$n" >&2
	exit 4
fi`, `exit status 4: iptables-restore v1.8.9 (nf_tables): line 3: RULE_APPEND failed (No such file or directory): rule in chain ZWRM-PROBE; ` +
			`that line is "-A ZWRM-PROBE -m devgroup --src-group 0x5a000000/0xff000000 -m comment --comment \"zwrm: probe\" -j DROP"`},
		{"legacy", refusing + `
	echo "iptables-restore: line $last failed" >&2
	exit 1
fi`, `exit status 1: iptables-restore: line 4 failed; that line is "COMMIT"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := pathOf(t, map[string]string{
				"iptables": "echo 'iptables v1.8.9'", "iptables-save": "exit 0", "iptables-restore": test.restore,
				"ip6tables-save": "exit 0", "ip6tables-restore": "cat > /dev/null",
			})
			want := `use match "devgroup" of iptables: the kernel needs CONFIG_NETFILTER_XT_MATCH_DEVGROUP: ` +
				`run "` + filepath.Join(dir, "iptables-restore") + `": ` + test.want
			if _, err := Open(t.Context(), nil); err == nil || err.Error() != want {
				t.Errorf("error %v\nwant  %s", err, want)
			}
		})
	}
}

// pathOf makes PATH a folder that holds the scripts, behind the folders of the
// programs that the scripts use.
func pathOf(t *testing.T, scripts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nPATH=/usr/bin:/bin\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	return dir
}

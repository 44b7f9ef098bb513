package nftables

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"zwrm/internal/firewall/nftables/nfnetlink"
)

// TestOlderKernels: what is missing is named, or is done without.
func TestOlderKernels(t *testing.T) {
	tests := []struct {
		name  string
		fault error
		match func([]netlink.Message) bool
		want  string // of the error
	}{
		{"no nf_tables", unix.EOPNOTSUPP, anything,
			"use tables of the family inet of nftables: the kernel needs CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET: operation not supported"},
		{"no fib", unix.ENOENT, has("fib\x00"), "use expression fib of nftables: the kernel needs CONFIG_NFT_FIB_INET: no such file or directory"},
		{"no masquerade", unix.ENOENT, has("masq\x00"), "use expression masq of nftables: the kernel needs CONFIG_NFT_MASQ: no such file or directory"},
		{"no memory", unix.ENOMEM, anything, "ask the kernel what its nftables can do: cannot allocate memory"},
		{"no memory for a match", unix.ENOMEM, has("bpf\x00"), "ask the kernel what its nftables can do: cannot allocate memory"},
		{"no memory for flags", unix.ENOMEM, asksForFlags, "ask the kernel for the table flags owner and persist: cannot allocate memory"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onOwnKernel(t, func(t *testing.T) {
				d, err := openOn(t, &faulty{receive: times(1000, test.fault, test.match)})
				if err == nil || err.Error() != test.want {
					t.Errorf("Open: %v, want %s", err, test.want)
				}
				if d != nil {
					t.Error("Open returns a Dataplane as well")
				}
			})
		})
	}
}

// openOn opens a Dataplane on a socket with faults.
func openOn(t *testing.T, f *faulty) (*Dataplane, error) {
	t.Helper()
	s, err := nfnetlink.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	f.Socket = s
	return open(t.Context(), f, nil)
}

func anything([]netlink.Message) bool { return true }

// has returns a match of messages that have the text in them.
func has(text string) func([]netlink.Message) bool {
	return func(messages []netlink.Message) bool {
		return slices.ContainsFunc(messages, func(m netlink.Message) bool { return bytes.Contains(m.Data, []byte(text)) })
	}
}

// asksForFlags matches requests for a table with the flags owner and persist.
func asksForFlags(messages []netlink.Message) bool {
	return slices.ContainsFunc(messages, func(m netlink.Message) bool {
		return m.Header.Type == nfnetlink.Type(unix.NFT_MSG_NEWTABLE) && bytes.Contains(m.Data, tableFlags(6))
	})
}

// TestLosses: what a kernel cannot keep is told, and the rest is kept.
func TestLosses(t *testing.T) {
	const (
		owner = "the table is anybody's with root: this kernel cannot keep it for its owner alone and beyond the owner's death " +
			"(flags owner and persist, Linux 6.9), so `nft flush ruleset` and the like delete it until the next repair"
		mac = "guests may send with a forged Ethernet source address: this kernel lacks the match \"bpf\" in nftables " +
			"(CONFIG_NFT_COMPAT and CONFIG_NETFILTER_XT_MATCH_BPF)"
	)
	either := func(m []netlink.Message) bool { return has("bpf\x00")(m) || asksForFlags(m) }
	tests := []struct {
		name  string
		fault error
		match func([]netlink.Message) bool
		want  []string
	}{
		{"no owner or persist", unix.EOPNOTSUPP, asksForFlags, []string{owner}},
		{"no flags at all", unix.EINVAL, asksForFlags, []string{owner}},
		{"no match of iptables", unix.ENOENT, has("bpf\x00"), []string{mac}},
		{"neither", unix.ENOENT, either, []string{owner, mac}},
		{"answer lost", unix.ENOBUFS, anything, nil},
		{"interrupted", unix.EINTR, anything, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onOwnKernel(t, func(t *testing.T) {
				faults := 1000
				if test.want == nil {
					faults = 3 // it passes
				}
				d, err := openOn(t, &faulty{receive: times(faults, test.fault, test.match)})
				if err != nil {
					t.Fatal(err)
				}
				if got := d.Losses(); !slices.Equal(got, test.want) {
					t.Errorf("Losses says\n%q, want\n%q", got, test.want)
				}
				mustApply(t, d, policy(nil))
				if got := mustDiff(t, d, policy(nil)); got != "" {
					t.Errorf("differences:\n%s", got)
				}
				want, err := os.ReadFile("testdata/private_on_two_apps.txt")
				if err != nil {
					t.Fatal(err)
				}
				lost := string(want)
				if slices.Contains(test.want, mac) {
					lost = withoutXT(lost)
				}
				if got := list(t); got != lost {
					t.Errorf("the table is\n%s, want\n%s", got, lost)
				}
				out, err := tryNFT(t, "", "delete", "table", "inet", "zwrm")
				if owned := !slices.Contains(test.want, owner); owned != (err != nil) {
					t.Errorf("nft deletes the table: %v %s, want that it has an owner: %t", err, out, owned)
				}
			})
		})
	}
}

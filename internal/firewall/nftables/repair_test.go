package nftables

import (
	"regexp"
	"strings"
	"testing"
)

// Rules as Diff tells them.
const (
	ruleSame = `meta nfproto ipv4 iifgroup . oifgroup @same_app accept comment "zwrm: app"`
	ruleLast = `meta nfproto ipv4 counter drop comment "zwrm: other-app"`
	ruleHost = `meta nfproto ipv4 iifgroup & 0xff000000 == 0x5a000000 counter drop comment "zwrm: host"`
)

// TestRepair: on a kernel where others can change the table, Diff names each thing
// that is not as it should be, and Apply mends it.
func TestRepair(t *testing.T) {
	tests := []struct {
		name   string
		change string // lines for nft, between bars; HANDLE is that of the last rule of input, SAME that of the first of forward
		want   []string
	}{
		{"chain flushed", "flush chain inet zwrm private", []string{
			"private rule 1: wanted " + ruleLast + ", found missing",
		}},
		{"rule deleted", "delete rule inet zwrm input handle HANDLE", []string{"input rule 5: wanted " + ruleHost + ", found missing"}},
		{"rule added", "insert rule inet zwrm private accept", []string{
			`private rule 1: wanted none, found rule with handle N, not of ZWRM comment ""`,
		}},
		{"rule replaced by one with our comment", `replace rule inet zwrm input handle HANDLE accept comment "zwrm: host"`, []string{
			"input rule 5: wanted " + ruleHost + `, found rule with handle N, not of ZWRM comment "zwrm: host"`,
		}},
		{"chain added", "add chain inet zwrm more | add rule inet zwrm more accept", []string{"more: wanted none, found chain of 1 rule"}},
		{"chain deleted", "delete chain inet zwrm output", []string{"output: wanted chain of 4 rules, found missing"}},
		{"policy changed", "chain inet zwrm forward { policy drop; }", []string{
			"forward: wanted type filter hook forward priority 0; policy accept;, found type filter hook forward priority 0; policy drop;",
		}},
		{"hook changed", "delete chain inet zwrm output | add chain inet zwrm output { type filter hook output priority 7; }", []string{
			"output: wanted type filter hook output priority 0; policy accept;, found type filter hook output priority 7; policy accept;",
			`output rule 1: wanted oifgroup 0x5a000000 counter drop comment "zwrm: unassigned", found missing`,
			`output rule 2: wanted oifname "zvm*" oifgroup & 0xff000000 != 0x5a000000 counter drop comment "zwrm: stray-tap", found missing`,
			`output rule 3: wanted meta nfproto ipv6 oifgroup & 0xff000000 == 0x5a000000 counter drop comment "zwrm: no-ipv6", found missing`,
			`output rule 4: wanted meta nfproto ipv4 oifgroup & 0xff000000 == 0x5a000000 accept comment "zwrm: from-host", found missing`,
		}},
		{"element deleted", "delete element inet zwrm same_app { 0x5a000001 . 0x5a000001 }", []string{
			"element 0x5a000001 . 0x5a000001: wanted zwrm: app db, found missing",
		}},
		{"element added", "add element inet zwrm same_app { 0x5a000001 . 0x5a000002 }", []string{
			`element 0x5a000001 . 0x5a000002: wanted none, found ""`,
		}},
		{"element of another name", "delete element inet zwrm same_app { 0x5a000001 . 0x5a000001 } | " +
			`add element inet zwrm same_app { 0x5a000001 . 0x5a000001 comment "mine" }`, []string{
			`element 0x5a000001 . 0x5a000001: wanted zwrm: app db, found "mine"`,
		}},
		{"set made anew without a size", "delete rule inet zwrm forward handle SAME | delete set inet zwrm same_app | " +
			"add set inet zwrm same_app { type devgroup . devgroup; }", []string{
			"forward rule 1: wanted " + ruleSame + ", found missing",
			"set same_app: wanted set of 2 apps, found missing",
			"set same_app: wanted none, found set of size 0",
		}},
		{"set added", "add set inet zwrm more { type ipv4_addr; size 9; }", []string{"set more: wanted none, found set of size 9"}},
		{"made dormant", "add table inet zwrm { flags dormant; }", []string{"flags: wanted none, found 0x1"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onOwnKernel(t, func(t *testing.T) {
				d := unprotected(t)
				mustApply(t, d, policy(nil))
				change := strings.NewReplacer("HANDLE", lastHandle(nft(t, "-a", "list", "chain", "inet", "zwrm", "input")), "SAME", sameHandle(t), " | ", "\n").Replace(test.change)
				if out, err := tryNFT(t, change+"\n", "-f", "-"); err != nil {
					t.Fatalf("nft %s: %v\n%s", change, err, out)
				}
				want := "nftables inet zwrm " + strings.Join(test.want, "\nnftables inet zwrm ") + "\n"
				if got := withoutHandles(mustDiff(t, d, policy(nil))); got != want {
					t.Errorf("differences\n%s, want\n%s", got, want)
				}
				mustApply(t, d, policy(nil))
				if got := mustDiff(t, d, policy(nil)); got != "" {
					t.Errorf("differences after Apply:\n%s", got)
				}
				golden(t, "private_on_two_apps.txt", list(t))
			})
		})
	}
}

// sameHandle returns the handle of the rule that asks for apps.
func sameHandle(t *testing.T) string {
	t.Helper()
	return regexp.MustCompile(`@same_app .*# handle (\d+)`).FindStringSubmatch(nft(t, "-a", "list", "chain", "inet", "zwrm", "forward"))[1]
}

// lastHandle returns the handle of the last rule of a listing.
func lastHandle(listing string) string {
	all := regexp.MustCompile(`# handle (\d+)`).FindAllStringSubmatch(listing, -1)
	return all[len(all)-1][1]
}

func withoutHandles(text string) string {
	return regexp.MustCompile(`handle \d+`).ReplaceAllString(text, "handle N")
}

package nftables

import (
	"strings"
	"testing"
)

// TestOthersCannotChange: while zwrmd lives, the kernel refuses changes by anybody
// else, and a flush of everything passes the table by.
func TestOthersCannotChange(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d := applied(t, policy(nil))
		before := list(t)
		for _, command := range []string{
			"add rule inet zwrm forward accept",
			"insert rule inet zwrm private accept",
			"flush chain inet zwrm private",
			"flush table inet zwrm",
			"delete table inet zwrm",
			"delete element inet zwrm same_app { 0x5a000001 . 0x5a000001 }",
			"add element inet zwrm same_app { 0x5a000001 . 0x5a000002 }",
		} {
			if out, err := tryNFT(t, "", strings.Fields(command)...); err == nil || !strings.Contains(out, "Operation not permitted") {
				t.Errorf("nft %s: %v %s, want it refused", command, err, out)
			}
		}
		nft(t, "flush", "ruleset")
		if got := list(t); got != before {
			t.Errorf("the table is\n%s, was\n%s", got, before)
		}
		if got := mustDiff(t, d, policy(nil)); got != "" {
			t.Errorf("differences:\n%s", got)
		}
	})
}

// TestTakeOver: the table stays when its owner dies, which closes its socket, and
// the next one takes it over as it is.
func TestTakeOver(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		dead := applied(t, policy(nil))
		before := list(t)
		if err := dead.Close(); err != nil {
			t.Fatal(err)
		}
		if got := list(t); got != before {
			t.Errorf("the table is\n%s, was\n%s", got, before)
		}
		handles := nft(t, "-a", "list", "table", "inet", "zwrm")
		next := mustOpen(t)
		if got, want := mustDiff(t, next, policy(nil)), "nftables inet zwrm flags: wanted owner,persist, found persist\n"; got != want {
			t.Errorf("differences\n%s, want\n%s", got, want)
		}
		mustApply(t, next, policy(nil))
		if got := mustDiff(t, next, policy(nil)); got != "" {
			t.Errorf("differences:\n%s", got)
		}
		if out, err := tryNFT(t, "", "delete", "table", "inet", "zwrm"); err == nil {
			t.Errorf("the table was not taken over: nft may delete it %s", out)
		}
		after := nft(t, "-a", "list", "table", "inet", "zwrm")
		if strip(after) != strip(handles) {
			t.Errorf("the table was made anew:\n%s, was\n%s", after, handles)
		}
	})
}

// strip leaves the chains and rules with their handles.
func strip(listing string) string {
	var kept []string
	for line := range strings.Lines(listing) {
		if !strings.HasPrefix(line, "table") && !strings.Contains(line, "flags") && strings.TrimSpace(line) != "" {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// TestTwoOwners: a second zwrmd gets an error that says so and changes nothing.
func TestTwoOwners(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		first := applied(t, policy(nil))
		second := mustOpen(t)
		before := generation(t, first)
		for name, err := range map[string]error{"Apply": second.Apply(t.Context(), withApps(nil)), "Remove": second.Remove(t.Context())} {
			if err == nil || !strings.Contains(err.Error(), "stop the other zwrmd") {
				t.Errorf("%s: %v, want that there is another zwrmd", name, err)
			}
		}
		if after := generation(t, first); after != before {
			t.Errorf("%d transactions were made", after-before)
		}
		if got := mustDiff(t, first, policy(nil)); got != "" {
			t.Errorf("differences:\n%s", got)
		}
	})
}

// TestWithoutFlags: on an older kernel the table is made without the flags, stays
// when zwrmd dies all the same, and comes back after a flush.
func TestWithoutFlags(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d := unprotected(t)
		mustApply(t, d, policy(nil))
		if got := d.Losses(); len(got) != 1 || !strings.Contains(got[0], "owner and persist") {
			t.Errorf("Losses says %q", got)
		}
		nft(t, "flush", "ruleset")
		if got, want := mustDiff(t, d, policy(nil)), "nftables inet zwrm: wanted table of 7 chains, found missing\n"; got != want {
			t.Errorf("differences\n%s, want\n%s", got, want)
		}
		mustApply(t, d, policy(nil))
		golden(t, "private_on_two_apps.txt", list(t))
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		golden(t, "private_on_two_apps.txt", list(t))

		// A newer kernel: the table gets the flags.
		next := applied(t, policy(nil))
		if got := mustDiff(t, next, policy(nil)); got != "" {
			t.Errorf("differences:\n%s", got)
		}
		nft(t, "flush", "ruleset")
		golden(t, "private_on_two_apps.txt", list(t))
	})
}

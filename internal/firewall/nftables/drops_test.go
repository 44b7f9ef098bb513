package nftables

import (
	"maps"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"zwrm/internal/firewall"
	"zwrm/internal/host/nstest"
)

// dropWorld is a world with a guest whose every packet to its neighbour, of another
// app, is dropped and counted.
type dropWorld struct {
	*world
	other *nstest.Guest
}

func newDropWorld(t *testing.T) dropWorld {
	t.Helper()
	w := newWorld(t)
	w.guest(t, 2, 1)
	return dropWorld{w, w.guest(t, 3, 2)}
}

func (w dropWorld) send(t *testing.T, n int) {
	t.Helper()
	for range n {
		if err := w.other.Send(udpFrame(w.layout.GuestMAC(3), "172.16.0.14", "172.16.0.10")); err != nil {
			t.Fatal(err)
		}
	}
}

// expectDrops compares what was dropped from one app to the other, in packets.
func expectDrops(t *testing.T, when string, d *Dataplane, want int) {
	t.Helper()
	all := mustDrops(t, d)
	if got, want := all[firewall.OtherApp], (firewall.Count{Packets: uint64(want), Bytes: uint64(want * udpSize)}); got != want {
		t.Errorf("%s: %v were dropped, want %v", when, got, want)
	}
	for _, reason := range dropReasons(policy(nil)) {
		if _, ok := all[reason]; !ok {
			t.Errorf("%s: nothing is told of %q", when, reason)
		}
	}
}

// dropReasons returns the reasons for which rules drop.
func dropReasons(rules firewall.Ruleset) []firewall.Reason {
	var all []firewall.Reason
	for _, r := range rules.Rules {
		if r.Verdict == firewall.Drop {
			all = append(all, r.Reason)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// anew returns rules for which the table has to be made anew.
func anew() firewall.Ruleset {
	return policy(func(p *firewall.Policy) { p.EgressDeny = append(p.EgressDeny, p.Subnet) })
}

// TestDrops: every reason to drop is there and no other, and what was dropped is
// counted to the packet while the table is made anew and by the next owner.
func TestDrops(t *testing.T) {
	w := newDropWorld(t)
	d := applied(t, policy(nil))
	if got, want := slices.Sorted(maps.Keys(mustDrops(t, d))), dropReasons(policy(nil)); !slices.Equal(got, want) {
		t.Errorf("reasons are %v, want %v", got, want)
	}
	w.send(t, 5)
	expectDrops(t, "at first", d, 5)
	w.send(t, 2)
	mustApply(t, d, anew())
	expectDrops(t, "made anew", d, 7)
	w.send(t, 9) // more than before, so that the counters alone do not tell that they began again
	expectDrops(t, "after that", d, 16)
	mustApply(t, d, policy(nil))
	expectDrops(t, "made anew again", d, 16)

	w.send(t, 3)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	w.send(t, 4)
	next := mustOpen(t)
	expectDrops(t, "seen by the next", next, 7) // in this table
	mustApply(t, next, policy(nil))
	expectDrops(t, "taken over", next, 7)
	w.send(t, 1)
	expectDrops(t, "owned by the next", next, 8)
	if got := dropped(t, firewall.OtherApp); got != 8 {
		t.Errorf("nft says %d", got)
	}
}

// TestDropsOfDeletedTable: what was once told stays told, whoever deletes the table
// that holds it, and whatever is counted in its place.
func TestDropsOfDeletedTable(t *testing.T) {
	w := newDropWorld(t)
	if err := applied(t, policy(nil)).Close(); err != nil {
		t.Fatal(err)
	}
	w.send(t, 5)
	d := mustOpen(t)
	expectDrops(t, "of a dead owner", d, 5)
	nft(t, "delete", "table", "inet", "zwrm")
	expectDrops(t, "deleted", d, 5)
	mustApply(t, d, policy(nil))
	expectDrops(t, "mended", d, 5)
	w.send(t, 9)
	expectDrops(t, "after that", d, 14)
}

// TestDropsOfChangedTable: on a kernel where others may change the table, neither a
// new table between two looks nor a rule of theirs spoils the count.
func TestDropsOfChangedTable(t *testing.T) {
	w := newDropWorld(t)
	d := unprotected(t)
	mustApply(t, d, policy(nil))
	w.send(t, 5)
	expectDrops(t, "at first", d, 5)
	nft(t, "flush", "ruleset")
	mustApply(t, d, policy(nil))
	w.send(t, 9)
	expectDrops(t, "made anew", d, 14)

	nft(t, "add", "rule", "inet", "zwrm", "private", "counter", "drop", "comment", `"theirs"`)
	nft(t, "insert", "rule", "inet", "zwrm", "private", "counter", "comment", `"zwrm"`)
	w.send(t, 1)
	expectDrops(t, "beside a rule of others", d, 15)
	if got, want := slices.Sorted(maps.Keys(mustDrops(t, d))), dropReasons(policy(nil)); !slices.Equal(got, want) {
		t.Errorf("reasons are %v, want %v", got, want)
	}
	mustApply(t, d, policy(nil))
	expectDrops(t, "mended", d, 15)
}

// TestDropsAfterFailure: a table that could not be made anew goes on counting, and
// nothing is counted twice. Rules are mended even if the counters cannot be read.
func TestDropsAfterFailure(t *testing.T) {
	w := newDropWorld(t)
	d, f := openFaulty(t)
	mustApply(t, d, policy(nil))
	w.send(t, 5)
	f.send = times(1000, unix.ENOMEM, commits)
	if err := d.Apply(t.Context(), anew()); err == nil {
		t.Fatal("nothing went wrong")
	}
	f.send = nil
	expectDrops(t, "not made anew", d, 5)

	dumps := 0 // the first of Apply are the rules, the next the counters
	f.receive = func(messages []netlink.Message) error {
		if is(unix.NFT_MSG_GETRULE, messages) {
			if dumps++; dumps == 2 {
				return unix.ENOMEM
			}
		}
		return nil
	}
	mustApply(t, d, anew())
	f.receive = nil
	if got := mustDiff(t, d, anew()); got != "" {
		t.Errorf("differences:\n%s", got)
	}
	expectDrops(t, "made anew", d, 5) // as known from before
}

// TestDropsAskLittle: the counters are read without the elements of apps, and as
// they were at one moment.
func TestDropsAskLittle(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d, f := openFaulty(t)
		if got := mustDrops(t, d); len(got) != 0 {
			t.Errorf("without a table: %v", got)
		}
		mustApply(t, d, policy(nil))
		asked, changed := map[string]int{}, false
		f.send = func(messages []netlink.Message) error {
			for name, kind := range map[string]uint16{"chains": unix.NFT_MSG_GETCHAIN, "sets": unix.NFT_MSG_GETSET,
				"elements": unix.NFT_MSG_GETSETELEM, "rules": unix.NFT_MSG_GETRULE} {
				if is(kind, messages) {
					asked[name]++
				}
			}
			if is(unix.NFT_MSG_GETRULE, messages) && !changed {
				changed = true
				nft(t, "add", "table", "inet", "others")
			}
			return nil
		}
		mustDrops(t, d)
		if want := map[string]int{"rules": 2}; !maps.Equal(asked, want) {
			t.Errorf("asked for %v, want %v", asked, want)
		}
	})
}

// TestDropsOfVanishingTable: what was read of a table that went meanwhile is not
// taken for what there is.
func TestDropsOfVanishingTable(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d, f := openFaulty(t)
		d.able.flags = 0
		mustApply(t, d, policy(nil))
		d.tally = firewall.Tally{}
		f.receive = func(messages []netlink.Message) error {
			if is(unix.NFT_MSG_GETRULE, messages) {
				nft(t, "flush", "ruleset")
			}
			return nil
		}
		if got := mustDrops(t, d); len(got) != 0 {
			t.Errorf("drops are %v", got)
		}
	})
}

// TestDropsOfForeignTable: what others count in a table of our name is theirs.
func TestDropsOfForeignTable(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d := mustOpen(t)
		if out, err := tryNFT(t, `table inet zwrm { chain c { counter drop comment "zwrm: spoofed"; }; }`, "-f", "-"); err != nil {
			t.Fatalf("nft: %v\n%s", err, out)
		}
		if got := mustDrops(t, d); len(got) != 0 {
			t.Errorf("drops are %v", got)
		}
	})
}

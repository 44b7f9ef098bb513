package nftables

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"zwrm/internal/firewall/nftables/nfnetlink"
	"zwrm/internal/host/nstest"
)

// next returns the next change. One that does not come fails the test.
func next(t *testing.T, changes <-chan Change) Change {
	t.Helper()
	select {
	case c, ok := <-changes:
		if !ok {
			t.Fatal("the channel is closed")
		}
		return c
	case <-time.After(30 * time.Second):
		t.Fatal("no change is told")
	}
	return Change{}
}

// by runs a program and returns the change that it should be told as.
func by(t *testing.T, program string, args ...string) Change {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return Change{PID: cmd.Process.Pid, Program: program}
}

// ours returns the change that the calling thread's transactions should be told as.
// The thread must be locked.
func ours(t *testing.T) Change {
	t.Helper()
	name, err := os.ReadFile("/proc/thread-self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return Change{PID: unix.Gettid(), Program: strings.TrimSpace(string(name))}
}

// TestWatch: each transaction is told once with who made it, however it was made,
// and those of other namespaces are not.
func TestWatch(t *testing.T) {
	elsewhere := nstest.New(t)
	onOwnKernel(t, func(t *testing.T) {
		changes, err := Watch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d := mustOpen(t)
		elsewhere.Do(t, func() { nft(t, "add", "table", "inet", "others") })
		var want []Change
		mustApply(t, d, withApps(manyApps(5000)))
		want = append(want, ours(t))
		want = append(want, by(t, "nft", "add", "table", "inet", "others"))
		want = append(want, by(t, "iptables-nft", "-P", "FORWARD", "DROP"))
		if err := d.AddApps(t.Context(), app("new", 1<<20)); err != nil {
			t.Fatal(err)
		}
		want = append(want, ours(t))
		by(t, "nft", "list", "ruleset") // changes nothing
		want = append(want, by(t, "nft", "flush", "ruleset"))
		for _, want := range want {
			if got := next(t, changes); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		}
		select {
		case c := <-changes:
			t.Errorf("got %v as well", c)
		default:
		}
	})
}

// TestWatchEnds: the end of ctx closes the channel, whether somebody reads or not.
func TestWatchEnds(t *testing.T) {
	for _, read := range []bool{true, false} {
		t.Run(fmt.Sprintf("read=%t", read), func(t *testing.T) {
			onOwnKernel(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				changes, err := Watch(ctx)
				if err != nil {
					t.Fatal(err)
				}
				made := by(t, "nft", "add", "table", "inet", "others")
				if read {
					if got := next(t, changes); got != made {
						t.Errorf("got %v, want %v", got, made)
					}
				}
				cancel()
				end := time.After(30 * time.Second)
				for {
					select {
					case _, ok := <-changes:
						if !ok {
							return
						}
					case <-end:
						t.Fatal("the channel is not closed")
					}
				}
			})
		})
	}
}

// TestWatchKeepsUp: notices of rules and elements take no room, so that a large
// change does not hide the next.
func TestWatchKeepsUp(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		s, err := listen()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SetReadBuffer(16 << 10); err != nil {
			t.Fatal(err)
		}
		d := applied(t, withApps(manyApps(5000)))
		mustApply(t, d, withApps(manyApps(4000)))
		want := []Change{ours(t), ours(t), by(t, "nft", "add", "table", "inet", "others")}
		if got := passed(t, s, len(want)); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// TestWatchOverflow: when the kernel had no room for some notices, that is told.
func TestWatchOverflow(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		s, err := listen()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SetReadBuffer(1); err != nil { // the kernel takes the least it can do with
			t.Fatal(err)
		}
		d := applied(t, withApps(nil))
		for i := range 20 {
			if err := d.AddApps(t.Context(), manyApps(20)[i]); err != nil {
				t.Fatal(err)
			}
		}
		if got := passed(t, s, 2); !slices.Contains(got, Change{}) {
			t.Errorf("got %v, want that some were missed", got)
		}
	})
}

// passed returns the first n changes of a socket, and closes it.
func passed(t *testing.T, s *netlink.Conn, n int) []Change {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan Change, changesKept)
	go pass(ctx, s, changes)
	var got []Change
	for range n {
		got = append(got, next(t, changes))
	}
	cancel()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range changes { // until pass has ended
	}
	return got
}

// received is what comes by one call of Receive.
type received func() ([]netlink.Message, error)

// notices is a socket by which notices come and then none any more.
type notices struct {
	end  context.CancelFunc
	left []received
}

func (n *notices) Receive() ([]netlink.Message, error) {
	if len(n.left) == 0 {
		n.end()
		return nil, os.ErrClosed
	}
	now := n.left[0]
	n.left = n.left[1:]
	return now()
}

// notice returns what the kernel sends at the end of a transaction.
func notice(c Change) received {
	return func() ([]netlink.Message, error) {
		e := netlink.NewAttributeEncoder()
		e.Bytes(generationPID, []byte{byte(c.PID >> 24), byte(c.PID >> 16), byte(c.PID >> 8), byte(c.PID)})
		e.String(generationName, c.Program)
		data, err := e.Encode()
		return []netlink.Message{{Header: netlink.Header{Type: nfnetlink.Type(unix.NFT_MSG_NEWGEN)}, Data: append(make([]byte, 4), data...)}}, err
	}
}

// TestWatchSlowReader: changes that nobody reads become one, so that reading them
// late tells that one must look. Those of one thread stay its own.
func TestWatchSlowReader(t *testing.T) {
	failed := func(err error) received {
		return func() ([]netlink.Message, error) { return nil, err }
	}
	short := func() ([]netlink.Message, error) { return []netlink.Message{{Data: []byte{1}}}, nil }
	cut := func() ([]netlink.Message, error) {
		messages, err := notice(Change{PID: 1, Program: "own"})()
		messages[0].Data = append(messages[0].Data, 40, 0, 9, 0) // an attribute that is not there
		return messages, err
	}
	own, other, missed := Change{PID: 1, Program: "own"}, Change{PID: 2, Program: "other"}, Change{}
	repeat := func(c Change, n int) []Change { return slices.Repeat([]Change{c}, n) }
	tests := []struct {
		name string
		in   []received
		want []Change
	}{
		{"few", []received{notice(own), notice(other)}, []Change{own, other}},
		{"no room in the kernel", []received{notice(own), failed(unix.ENOBUFS), notice(own)}, []Change{own, missed, own}},
		{"another error", []received{failed(unix.EINTR), notice(own)}, []Change{missed, own}},
		{"not to be read", []received{short, notice(own)}, []Change{missed, own}},
		{"not to be read to the end", []received{cut, notice(own)}, []Change{missed, own}},
		{"as many as fit", slices.Repeat([]received{notice(own), notice(other)}, changesKept/2),
			slices.Repeat([]Change{own, other}, changesKept/2)},
		{"many of one thread", slices.Repeat([]received{notice(own)}, 3*changesKept), repeat(own, changesKept)},
		{"one of another as the first of many", append([]received{notice(other)},
			slices.Repeat([]received{notice(own)}, changesKept)...), append(repeat(own, changesKept-1), missed)},
		{"one of another as the last of many", append(slices.Repeat([]received{notice(own)}, changesKept), notice(other)),
			append(repeat(own, changesKept-1), missed)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			changes := make(chan Change, changesKept)
			pass(ctx, &notices{cancel, test.in}, changes)
			var got []Change
			for c := range changes {
				got = append(got, c)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %d changes %v, want %d %v", len(got), got, len(test.want), test.want)
			}
		})
	}
}

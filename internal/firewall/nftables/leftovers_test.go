package nftables

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"zwrm/internal/firewall/nftables/nfnetlink"
)

// mustLeftovers opens what is left, which the test need not close.
func mustLeftovers(t *testing.T) *Dataplane {
	t.Helper()
	d, err := Leftovers(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if d == nil {
		t.Fatal("this kernel has nf_tables, and Leftovers says that it has not")
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// TestLeftovers: what a dead zwrmd left is removed, and nothing else.
func TestLeftovers(t *testing.T) {
	tests := []struct {
		name, before, after string // lines for nft before and the tables after
		dead                bool   // a zwrmd left its table
		transactions        uint32
	}{
		{"nothing", "", "", false, 0},
		{"a table of a dead owner", "", "", true, 1},
		{"beside others", "add table inet others", "table inet others {\n}\n", true, 1},
		{"a foreign table of our name", "add table inet zwrm", "table inet zwrm {\n}\n", false, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onOwnKernel(t, func(t *testing.T) {
				if out, err := tryNFT(t, test.before+"\n", "-f", "-"); err != nil {
					t.Fatalf("nft: %v\n%s", err, out)
				}
				if test.dead {
					if err := applied(t, policy(nil)).Close(); err != nil {
						t.Fatal(err)
					}
				}
				d := mustLeftovers(t)
				before := generation(t, d)
				for range 2 {
					if err := d.Remove(t.Context()); err != nil {
						t.Error(err)
					}
				}
				if got := generation(t, d) - before; got != test.transactions {
					t.Errorf("%d transactions were made, want %d", got, test.transactions)
				}
				if got := nft(t, "list", "ruleset"); got != test.after {
					t.Errorf("tables are\n%s, want\n%s", got, test.after)
				}
			})
		})
	}
}

// TestLeftoversOfTheLiving: a zwrmd that runs keeps its table.
func TestLeftoversOfTheLiving(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		owner := applied(t, policy(nil))
		if err := mustLeftovers(t).Remove(t.Context()); err == nil || !strings.Contains(err.Error(), "stop the other zwrmd") {
			t.Errorf("Remove: %v, want that there is another zwrmd", err)
		}
		if got := mustDiff(t, owner, policy(nil)); got != "" {
			t.Errorf("differences:\n%s", got)
		}
	})
}

// TestLeftoversAskLittle: only the head of the table is asked for, since a kernel
// that lacks what rules need may still hold some.
func TestLeftoversAskLittle(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		applied(t, policy(nil)).Close()
		s, err := nfnetlink.Dial()
		if err != nil {
			t.Fatal(err)
		}
		others := 0
		f := &faulty{Socket: s, send: func(messages []netlink.Message) error {
			if !is(unix.NFT_MSG_GETTABLE, messages) && !is(unix.NFT_MSG_DELTABLE, messages) {
				others++
			}
			return nil
		}}
		d, err := leftovers(t.Context(), func() (nfnetlink.Socket, error) { return f, nil }, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		if err := d.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if others > 0 {
			t.Errorf("%d other requests were made", others)
		}
		if got := nft(t, "list", "ruleset"); got != "" {
			t.Errorf("tables are left:\n%s", got)
		}
	})
}

// TestLeftoversWithoutNfTables: where there can be no table nothing is left, and any
// other failure is one.
func TestLeftoversWithoutNfTables(t *testing.T) {
	tests := []struct {
		name         string
		dial, answer error
		want         error
	}{
		{"no nfnetlink", os.NewSyscallError("socket", unix.EPROTONOSUPPORT), nil, nil},
		{"no nf_tables", nil, unix.EINVAL, nil}, // as of nfnetlink_rcv_msg
		{"no nf_tables in another way", nil, unix.EOPNOTSUPP, nil},
		{"no socket", unix.EMFILE, nil, unix.EMFILE},
		{"not root", nil, unix.EPERM, unix.EPERM},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			closed := &closing{}
			d, err := leftovers(t.Context(), func() (nfnetlink.Socket, error) {
				if test.dial != nil {
					return nil, test.dial
				}
				s, err := nfnetlink.Dial()
				closed.Socket = s
				return &faulty{Socket: closed, send: times(1, test.answer, anything)}, err
			}, nil)
			if d != nil || !errors.Is(err, test.want) || test.want == nil && err != nil {
				t.Errorf("got %v, %v, want the error %v", d, err, test.want)
			}
			if closed.Socket != nil && closed.times != 1 {
				t.Errorf("the socket was closed %d times", closed.times)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Leftovers(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// closing counts how often a socket is closed.
type closing struct {
	nfnetlink.Socket
	times int
}

func (c *closing) Close() error {
	c.times++
	return c.Socket.Close()
}

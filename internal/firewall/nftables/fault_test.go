package nftables

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/nftables/nfnetlink"
)

// faulty is a socket on which a test makes things go wrong. Each function may be
// nil. An error of send keeps the messages from the kernel; one of receive loses
// the answer to messages that it got.
type faulty struct {
	nfnetlink.Socket
	send    func(messages []netlink.Message) error
	receive func(messages []netlink.Message) error
	rewrite func(messages []netlink.Message) []netlink.Message // what the kernel gets instead
	last    []netlink.Message
}

func (f *faulty) SendMessages(messages []netlink.Message) ([]netlink.Message, error) {
	f.last = messages
	if f.send != nil {
		if err := f.send(messages); err != nil {
			return nil, err
		}
	}
	if f.rewrite != nil {
		messages = f.rewrite(messages)
	}
	return f.Socket.SendMessages(messages)
}

func (f *faulty) Receive() ([]netlink.Message, error) {
	answer, err := f.Socket.Receive()
	if err == nil && f.receive != nil {
		if err := f.receive(f.last); err != nil {
			return nil, err
		}
	}
	return answer, err
}

// is reports whether messages have one of the kind (NFT_MSG_*).
func is(kind uint16, messages []netlink.Message) bool {
	for _, m := range messages {
		if m.Header.Type == nfnetlink.Type(kind) {
			return true
		}
	}
	return false
}

// commits reports whether the messages are a transaction and not only checked.
func commits(messages []netlink.Message) bool {
	return messages[len(messages)-1].Header.Type == unix.NFNL_MSG_BATCH_END
}

// times returns a fault that comes so many times, at messages that match.
func times(n int, fault error, match func([]netlink.Message) bool) func([]netlink.Message) error {
	return func(messages []netlink.Message) error {
		if n > 0 && match(messages) {
			n--
			return fault
		}
		return nil
	}
}

func openFaulty(t *testing.T) (*Dataplane, *faulty) {
	t.Helper()
	s, err := nfnetlink.Dial()
	if err != nil {
		t.Fatal(err)
	}
	f := &faulty{Socket: s}
	d, err := open(t.Context(), f, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, f
}

// stopped is the socket of a process that is stopped for a while after each request:
// whatever it waits for only briefly, it finds the time over.
type stopped struct{ nfnetlink.Socket }

func (s stopped) SetReadDeadline(t time.Time) error {
	if time.Until(t) < time.Second {
		t = time.Unix(1, 0)
	}
	return s.Socket.SetReadDeadline(t)
}

// TestManyErrors: a refused transaction is answered once for each request, and none of
// that is taken for the answer to the next one.
func TestManyErrors(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		s, err := nfnetlink.Dial()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		conn := nfnetlink.New(stopped{s})
		var b nfnetlink.Batch
		for range 10 {
			b.DeleteTable(1 << 40)
		}
		if err := conn.Commit(b); !errors.Is(err, unix.ENOENT) {
			t.Errorf("tables that are not there are deleted: %v, want ENOENT", err)
		}
		if _, err := conn.Generation(); err != nil {
			t.Errorf("the next request: %v", err)
		}
	})
}

// TestLostAnswer: ENOBUFS, EINTR and an answer that does not come say nothing about
// what the kernel did. What is there decides, whether the change was made or not.
func TestLostAnswer(t *testing.T) {
	for _, fault := range []error{unix.ENOBUFS, unix.EINTR, os.ErrDeadlineExceeded} {
		for _, where := range []string{"request", "answer"} {
			t.Run(fault.Error()+" of the "+where, func(t *testing.T) {
				onOwnKernel(t, func(t *testing.T) {
					d, f := openFaulty(t)
					strike := func() {
						f.send, f.receive = nil, nil
						if where == "request" {
							f.send = times(1, fault, commits)
						} else {
							f.receive = times(1, fault, commits)
						}
					}
					strike()
					mustApply(t, d, policy(nil))
					strike()
					if err := d.AddApps(t.Context(), app("new", 3)); err != nil {
						t.Fatal(err)
					}
					strike()
					if err := d.RemoveApps(t.Context(), app("db", 1)); err != nil {
						t.Fatal(err)
					}
					if got := mustDiff(t, d, withApps([]firewall.App{app("web", 2), app("new", 3)})); got != "" {
						t.Errorf("differences:\n%s", got)
					}
					strike()
					if err := d.Remove(t.Context()); err != nil {
						t.Fatal(err)
					}
					if got := nft(t, "list", "ruleset"); got != "" {
						t.Errorf("tables are left:\n%s", got)
					}
				})
			})
		}
	}
}

// TestNothingGetsThrough: when no change can be made, the error says so, the
// kernel holds what it held, and what was not added does not count as added.
func TestNothingGetsThrough(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d, f := openFaulty(t)
		mustApply(t, d, policy(nil))
		f.send = times(1000, unix.ENOMEM, commits)
		for name, err := range map[string]error{
			"Apply":  d.Apply(t.Context(), withApps(nil)),
			"Remove": d.Remove(t.Context()),
		} {
			if !errors.Is(err, unix.ENOMEM) {
				t.Errorf("%s: %v, want ENOMEM", name, err)
			}
		}
		f.send = nil
		mustApply(t, d, policy(nil))
		f.send = times(1000, unix.ENOMEM, commits)
		if err := d.AddApps(t.Context(), app("new", 3)); !errors.Is(err, unix.ENOMEM) {
			t.Errorf("AddApps: %v, want ENOMEM", err)
		}
		if got := mustDiff(t, d, policy(nil)); got != "" {
			t.Errorf("differences:\n%s", got)
		}
		f.send = nil
		if err := d.RemoveApps(t.Context(), app("db", 1)); err != nil {
			t.Fatal(err)
		}
		if got := mustDiff(t, d, withApps([]firewall.App{app("web", 2)})); got != "" {
			t.Errorf("differences, want that \"new\" was never added:\n%s", got)
		}
	})
}

// TestChangedWhileRead: a table that changes between two dumps is read again, and
// reading it does not go on for ever.
func TestChangedWhileRead(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d, f := openFaulty(t)
		d.able.flags = 0
		mustApply(t, d, policy(nil))
		changes := []string{"delete element inet zwrm same_app { 0x5a000001 . 0x5a000001 }", "delete chain inet zwrm output"}
		f.send = func(messages []netlink.Message) error {
			if is(unix.NFT_MSG_GETSETELEM, messages) && len(changes) > 0 {
				nft(t, strings.Fields(changes[0])...)
				changes = changes[1:]
			}
			return nil
		}
		want := "nftables inet zwrm output: wanted chain of 4 rules, found missing\n" +
			"nftables inet zwrm element 0x5a000001 . 0x5a000001: wanted zwrm: app db, found missing\n"
		if got := mustDiff(t, d, policy(nil)); got != want {
			t.Errorf("differences\n%s, want\n%s", got, want)
		}
		f.send = func(messages []netlink.Message) error {
			if is(unix.NFT_MSG_GETSETELEM, messages) {
				nft(t, "add", "table", "inet", "others")
				nft(t, "delete", "table", "inet", "others")
			}
			return nil
		}
		_, err := d.Diff(t.Context(), policy(nil))
		if want := `read table "zwrm": tables changed each of 20 times they were read`; err == nil || err.Error() != want {
			t.Errorf("Diff: %v, want %s", err, want)
		}
	})
}

// TestGoneWhileRead: what was listed and is gone when it is read is no error.
func TestGoneWhileRead(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d, f := openFaulty(t)
		d.able.flags = 0
		mustApply(t, d, policy(nil))
		f.send = func(messages []netlink.Message) error {
			if is(unix.NFT_MSG_GETSETELEM, messages) {
				nft(t, "flush", "ruleset")
			}
			return nil
		}
		if got, want := mustDiff(t, d, policy(nil)), "nftables inet zwrm: wanted table of 7 chains, found missing\n"; got != want {
			t.Errorf("differences\n%s, want\n%s", got, want)
		}
	})
}

// TestInterruptedDump: a dump that the kernel breaks off is made again.
func TestInterruptedDump(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d, f := openFaulty(t)
		mustApply(t, d, policy(nil))
		for _, kind := range []uint16{unix.NFT_MSG_GETGEN, unix.NFT_MSG_GETTABLE, unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETRULE,
			unix.NFT_MSG_GETSET, unix.NFT_MSG_GETSETELEM} {
			for _, fault := range []error{unix.EINTR, unix.ENOBUFS} {
				f.receive = times(3, fault, func(m []netlink.Message) bool { return is(kind, m) })
				if got := mustDiff(t, d, policy(nil)); got != "" {
					t.Errorf("differences:\n%s", got)
				}
				mustDrops(t, d)
				if err := d.Preflight(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
		f.receive = times(1000, unix.EINTR, func(m []netlink.Message) bool { return is(unix.NFT_MSG_GETRULE, m) })
		if _, err := d.Diff(t.Context(), policy(nil)); !errors.Is(err, unix.EINTR) {
			t.Errorf("Diff: %v, want EINTR", err)
		}
		if _, err := d.Drops(t.Context()); !errors.Is(err, unix.EINTR) {
			t.Errorf("Drops: %v, want EINTR", err)
		}
	})
}

// TestForeignTableInBetween: a foreign table that comes after we looked is not taken
// for ours and not written into, even by a transaction that is on its way.
func TestForeignTableInBetween(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d, f := openFaulty(t)
		f.send = func(messages []netlink.Message) error {
			if commits(messages) {
				nft(t, "add", "table", "inet", "zwrm")
			}
			return nil
		}
		err := d.Apply(t.Context(), policy(nil))
		if foreign := (*ForeignError)(nil); !errors.As(err, &foreign) {
			t.Errorf("Apply: %v, want a ForeignError", err)
		}
		if got, want := nft(t, "list", "ruleset"), "table inet zwrm {\n}\n"; got != want {
			t.Errorf("tables are\n%s, want\n%s", got, want)
		}
	})
}

// TestAnswersInVain: the answers to a batch of which several requests fail are not
// taken for those to the next request.
func TestAnswersInVain(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d := mustOpen(t)
		var b nfnetlink.Batch
		for range 5 {
			b.DeleteTable(1 << 40)
		}
		for _, try := range []func(nfnetlink.Batch) error{d.conn.Check, d.conn.Commit} {
			if err := try(b); !errors.Is(err, unix.ENOENT) {
				t.Errorf("%v, want ENOENT", err)
			}
			if _, err := d.conn.Generation(); err != nil {
				t.Errorf("the next request: %v", err)
			}
		}
	})
}

// TestReadBack: a change that the kernel confirms and did not make, or made by half,
// does not count as made. It is made again, and is an error if that is in vain.
func TestReadBack(t *testing.T) {
	withoutFirst := func(kind uint16) func([]netlink.Message) []netlink.Message {
		return func(messages []netlink.Message) []netlink.Message {
			i := slices.IndexFunc(messages, func(m netlink.Message) bool { return m.Header.Type == nfnetlink.Type(kind) })
			if i < 0 {
				return messages
			}
			return slices.Delete(slices.Clone(messages), i, i+1)
		}
	}
	forgetFlags := func(messages []netlink.Message) []netlink.Message {
		messages = slices.Clone(messages)
		for i, m := range messages {
			if m.Header.Type == nfnetlink.Type(unix.NFT_MSG_NEWTABLE) {
				messages[i].Data = bytes.Replace(m.Data, tableFlags(6), tableFlags(0), 1)
			}
		}
		return messages
	}
	tests := []struct {
		name    string
		rewrite func([]netlink.Message) []netlink.Message
		want    string // of the error
	}{
		{"elements", withoutFirst(unix.NFT_MSG_NEWSETELEM),
			`write table "zwrm": nftables inet zwrm element 0x5a000001 . 0x5a000001 is missing although zwrm: app db was written`},
		{"rule", withoutFirst(unix.NFT_MSG_NEWRULE),
			`write table "zwrm": nftables inet zwrm prerouting rule 1 is missing although meta nfproto ipv4 iifgroup & 0xff000000 == 0x5a000000 jump guest comment "zwrm: from-vm" was written`},
		{"flags", forgetFlags, `write table "zwrm": nftables inet zwrm flags is none although owner,persist was written`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onOwnKernel(t, func(t *testing.T) {
				d, f := openFaulty(t)
				f.rewrite = test.rewrite
				if err := d.Apply(t.Context(), policy(nil)); err == nil || err.Error() != test.want {
					t.Errorf("Apply: %v, want %s", err, test.want)
				}
				once := false
				f.rewrite = func(messages []netlink.Message) []netlink.Message {
					if once || !commits(messages) {
						return messages
					}
					once = true
					return test.rewrite(messages)
				}
				mustApply(t, d, policy(nil))
				if got := mustDiff(t, d, policy(nil)); got != "" {
					t.Errorf("differences:\n%s", got)
				}
			})
		})
	}
}

// tableFlags is the attribute NFTA_TABLE_FLAGS.
func tableFlags(flags byte) []byte { return []byte{8, 0, unix.NFTA_TABLE_FLAGS, 0, 0, 0, 0, flags} }

// TestFilledSet: when others filled the set, an app that is added finds no room, and
// gets it by making the table anew.
func TestFilledSet(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		d := unprotected(t)
		mustApply(t, d, policy(nil))
		var b strings.Builder
		b.WriteString("add element inet zwrm same_app {")
		for i := range setSize - 2 {
			fmt.Fprintf(&b, " 1 . %d,", i)
		}
		if out, err := tryNFT(t, strings.TrimSuffix(b.String(), ",")+" }\n", "-f", "-"); err != nil {
			t.Fatalf("nft: %v\n%s", err, out)
		}
		if err := d.AddApps(t.Context(), app("new", 3)); err != nil {
			t.Fatal(err)
		}
		if got := mustDiff(t, d, withApps([]firewall.App{app("db", 1), app("web", 2), app("new", 3)})); got != "" {
			t.Errorf("differences:\n%.2000s", got)
		}
	})
}

package nftables

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/nftables/nfnetlink"
)

// faulty is a socket on which a test makes things go wrong. Both functions may be
// nil. An error of send keeps the messages from the kernel; one of receive loses
// the answer to messages that it got.
type faulty struct {
	nfnetlink.Socket
	send    func(messages []netlink.Message) error
	receive func(messages []netlink.Message) error
	last    []netlink.Message
}

func (f *faulty) SendMessages(messages []netlink.Message) ([]netlink.Message, error) {
	f.last = messages
	if f.send != nil {
		if err := f.send(messages); err != nil {
			return nil, err
		}
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
	d, err := open(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, f
}

// TestLostAnswer: ENOBUFS and EINTR say nothing about what the kernel did. What is
// there decides, whether the change was made or not.
func TestLostAnswer(t *testing.T) {
	for _, fault := range []error{unix.ENOBUFS, unix.EINTR} {
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
			}
		}
	})
}

// TestOlderKernels: what is missing is named, or is done without.
func TestOlderKernels(t *testing.T) {
	has := func(text string) func([]netlink.Message) bool {
		return func(messages []netlink.Message) bool {
			for _, m := range messages {
				if bytes.Contains(m.Data, []byte(text)) {
					return true
				}
			}
			return false
		}
	}
	tests := []struct {
		name  string
		fault error
		match func([]netlink.Message) bool
		want  string // of the error
	}{
		{"no nf_tables", unix.EOPNOTSUPP, func([]netlink.Message) bool { return true },
			"use tables of the family inet of nftables: the kernel needs CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET: operation not supported"},
		{"no fib", unix.ENOENT, has("fib\x00"), "use expression fib of nftables: the kernel needs CONFIG_NFT_FIB_INET: no such file or directory"},
		{"no masquerade", unix.ENOENT, has("masq\x00"), "use expression masq of nftables: the kernel needs CONFIG_NFT_MASQ: no such file or directory"},
		{"no owner or persist", unix.EOPNOTSUPP, func(m []netlink.Message) bool {
			return is(unix.NFT_MSG_NEWTABLE, m) && has("\x08\x00\x02\x00\x00\x00\x00\x06")(m[1:2]) // NFTA_TABLE_FLAGS
		}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onOwnKernel(t, func(t *testing.T) {
				s, err := nfnetlink.Dial()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Close() })
				d, err := open(t.Context(), &faulty{Socket: s, receive: times(1000, test.fault, test.match)})
				if test.want != "" {
					if err == nil || err.Error() != test.want {
						t.Errorf("Open: %v, want %s", err, test.want)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if len(d.Losses()) == 0 {
					t.Error("the table counts as protected")
				}
				mustApply(t, d, policy(nil))
				if out, err := tryNFT(t, "", "delete", "table", "inet", "zwrm"); err != nil {
					t.Errorf("the table has an owner all the same: %s", out)
				}
			})
		})
	}
}

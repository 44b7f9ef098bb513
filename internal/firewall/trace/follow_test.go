package trace

import (
	"context"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// recording gives out messages as a socket does: it ends in silence, or with an error.
type recording struct {
	socket
	messages []netlink.Message
	err      error
	deadline atomic.Pointer[time.Time]
}

func (r *recording) SetReadDeadline(t time.Time) error { r.deadline.Store(&t); return nil }

func (r *recording) Receive() ([]netlink.Message, error) {
	switch {
	case len(r.messages) > 0:
		next := r.messages[:1]
		r.messages = r.messages[1:]
		return next, nil
	case r.err != nil:
		return nil, r.err
	}
	time.Sleep(time.Until(*r.deadline.Load()))
	return nil, os.ErrDeadlineExceeded
}

// recorded reads a file of testdata: what the kernel told, and rules.
func recorded(t *testing.T, file string) (told, rules []netlink.Message) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		kind, data, _ := strings.Cut(strings.TrimSpace(line), " ")
		if kind == "#" {
			continue
		}
		m := netlink.Message{Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_TRACE}}
		if m.Data, err = hex.DecodeString(data); err != nil {
			t.Fatal(err)
		}
		if kind == "trace" {
			told = append(told, m)
		} else {
			rules = append(rules, m)
		}
	}
	return told, rules
}

// known is the places of the chains that are in the files.
func known() places {
	return places{
		{Inet, "zwrm", "prerouting"}: {hook: Prerouting}, {Inet, "zwrm", "forward"}: {hook: Forward}, {Inet, "zwrm", "private"}: {},
		{IPv4, "raw", "PREROUTING"}: {hook: Prerouting}, {IPv4, "filter", "FORWARD"}: {hook: Forward}, {IPv4, "nat", "POSTROUTING"}: {Postrouting, true},
		{IPv4, "raw", "ZWRM-RAW"}: {}, {IPv4, "filter", "ZWRM-FORWARD"}: {}, {IPv4, "nat", "ZWRM-NAT"}: {},
	}
}

func text(steps []Step) string {
	var b strings.Builder
	for _, s := range steps {
		b.WriteString(string(s.Hook) + " " + s.String() + "\n")
	}
	return b.String()
}

const otherApp = `prerouting inet zwrm prerouting: policy: accept
forward inet zwrm forward: rule 22: jump private
forward inet zwrm private: rule 30: drop
`

const internet = `prerouting ip raw PREROUTING: rule 10: jump ZWRM-RAW
prerouting ip raw ZWRM-RAW: end of chain: return
prerouting ip raw PREROUTING: policy: accept
forward ip filter FORWARD: rule 9: jump ZWRM-FORWARD
forward ip filter ZWRM-FORWARD: rule 22: accept
postrouting ip nat POSTROUTING: rule 5: jump ZWRM-NAT
postrouting ip nat ZWRM-NAT: rule 6: accept
`

// What a kernel told is understood.
func TestFollowRecorded(t *testing.T) {
	for _, test := range []struct {
		file     string
		want     Result
		steps    string
		comments []string
	}{
		{"nftables_other_app.txt", Result{Fate: Dropped, Deciding: Step{Inet, "zwrm", "private", Forward, 30, "", Drop, ""}}, otherApp,
			[]string{"zwrm: vm-to-vm", "zwrm: other-app"}},
		{"iptables_internet.txt", Result{Fate: Sent, Deciding: Step{IPv4, "filter", "ZWRM-FORWARD", Forward, 22, "", Accept, ""}, Masqueraded: true, Out: 8}, internet,
			[]string{"zwrm: hook", "zwrm: hook", "zwrm: internet", "zwrm: hook", "zwrm: internet"}},
	} {
		t.Run(test.file, func(t *testing.T) {
			told, rules := recorded(t, test.file)
			f := follower{places: known()}
			if err := f.listen(t.Context(), &recording{messages: told, err: errors.New("it listens on")}); err != nil {
				t.Fatal(err)
			}
			got := f.result()
			if got.Fate != test.want.Fate || got.Deciding != test.want.Deciding || got.Masqueraded != test.want.Masqueraded || got.Out != test.want.Out {
				t.Errorf("result is\n%+v, want\n%+v", got, test.want)
			}
			if text(got.Steps) != test.steps {
				t.Errorf("steps are\n%s\nwant\n%s", text(got.Steps), test.steps)
			}
			for i, rule := range rules {
				if comment, err := decodeComment(rule); err != nil || comment != test.comments[i] {
					t.Errorf("comment of rule %d is %q, error %v", i, comment, err)
				}
			}
			if len(rules) != len(test.comments) {
				t.Errorf("there are %d rules", len(rules))
			}
		})
	}
}

// When the kernel falls silent, what it said last tells why.
func TestFollowSilence(t *testing.T) {
	const id, others = 7, 8
	rule := func(id uint32, table, chain string, verdict Verdict) event {
		return event{id: id, step: Step{Family: Inet, Table: table, Chain: chain, Handle: 1, Verdict: verdict}}
	}
	marked := rule(id, ownTable, "prerouting", Continue)
	for _, test := range []struct {
		what   string
		events []event
		fate   Fate
		by     Verdict
		steps  int
	}{
		{"nothing", nil, Unseen, "", 0},
		{"others'", []event{rule(others, "zwrm", "forward", Drop)}, Unseen, "", 0},
		{"others' in our chain", []event{{id: others, step: Step{Family: Inet, Table: ownTable, Chain: "prerouting", Verdict: Return}}, rule(others, "zwrm", "forward", Drop)}, Unseen, "", 0},
		{"others' beside it", []event{marked, rule(others, "zwrm", "forward", Drop)}, Lost, "", 0},
		{"let through", []event{marked, rule(id, "zwrm", "forward", Accept)}, Lost, "", 1},
		{"queued", []event{marked, rule(id, "zwrm", "forward", Accept), rule(id, "theirs", "c", Queue)}, Taken, Queue, 2},
		{"stolen", []event{marked, rule(id, "theirs", "c", Stolen)}, Taken, Stolen, 1},
		{"queued and come back", []event{marked, rule(id, "theirs", "c", Queue), rule(id, "zwrm", "forward", Accept)}, Lost, "", 2},
		{"dropped", []event{marked, rule(id, "zwrm", "forward", Accept), rule(id, "theirs", "c", Drop)}, Dropped, Drop, 2},
		{"sent", []event{marked, rule(id, "theirs", "forward", Accept), rule(id, ownTable, "postrouting", Accept)}, Sent, "", 1},
		{"delivered", []event{marked, rule(id, "zwrm", "input", Accept), rule(id, "theirs", "input", Accept), rule(id, ownTable, "input", Accept)}, Delivered, Accept, 2},
		{"sent back by a rule", []event{marked, rule(id, "theirs", "forward", Return)}, Lost, "", 1},
		{"at the end of a chain", []event{marked, {id: id, step: Step{Family: Inet, Table: "theirs", Chain: "forward", Verdict: Return}}}, Lost, "", 0},
		{"at its begin in our table", []event{marked, rule(id, ownTable, "prerouting", Accept), rule(id, ownTable, "output", Accept)}, Lost, "", 0},
	} {
		f := follower{places: places{{Inet, "theirs", "forward"}: {hook: Forward}}}
		known := false
		for i, e := range test.events {
			if known {
				t.Errorf("%s: its fate is known before event %d", test.what, i)
			}
			known = f.take(e)
		}
		got := f.result()
		if got.Fate != test.fate || got.Deciding.Verdict != test.by || len(got.Steps) != test.steps {
			t.Errorf("%s: %s by %q, steps\n%s", test.what, got.Fate, got.Deciding, text(got.Steps))
		}
		if ends := got.Fate == Dropped || got.Fate == Sent || got.Fate == Delivered; known != ends {
			t.Errorf("%s: its fate is known: %t", test.what, known)
		}
	}
}

func TestVerdictOf(t *testing.T) {
	for code, want := range map[int32]Verdict{
		0: Drop, 1: Accept, 2: Stolen, 3: Queue, 7<<16 | 3: Queue, 4: "verdict 4",
		unix.NFT_CONTINUE: Continue, unix.NFT_BREAK: Continue, unix.NFT_JUMP: Jump, unix.NFT_GOTO: Goto, unix.NFT_RETURN: Return,
	} {
		if got := verdictOf(code); got != want {
			t.Errorf("verdict %d is %q, want %q", code, got, want)
		}
	}
}

// Listening ends: in silence, with ctx, when something was lost, and in the end.
func TestListenEnds(t *testing.T) {
	told, _ := recorded(t, "nftables_other_app.txt")
	told = told[:len(told)-1] // but how it ends
	why := errors.New("nobody waits")
	for _, test := range []struct {
		what   string
		r      *recording
		cancel bool
		want   string // error
		after  time.Duration
	}{
		{"in silence", &recording{messages: told}, false, "", silence},
		{"with ctx", &recording{messages: told}, true, why.Error(), 0},
		{"when something was lost", &recording{messages: told, err: unix.ENOBUFS}, false, "try again", 0},
		{"when the socket fails", &recording{err: unix.EIO}, false, unix.EIO.Error(), 0},
		{"with a message that is none", &recording{messages: []netlink.Message{{Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_TRACE}}}}, false, "too short", 0},
		{"with a message of something else", &recording{messages: make([]netlink.Message, 1)}, false, "", silence},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if test.cancel {
				cancel(why)
			}
			f, begin := follower{places: known()}, time.Now()
			err := f.listen(ctx, test.r)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: error is %v", test.what, err)
			}
			if took := time.Since(begin); took != test.after { // of a clock that stands still while all wait
				t.Errorf("%s: it listened for %s", test.what, took)
			}
		})
	}
}

// waiting tells nothing, and ends as soon as its deadline is over.
type waiting struct {
	socket
	deadline chan time.Time
}

func (w *waiting) SetReadDeadline(t time.Time) error { w.deadline <- t; return nil }

func (w *waiting) Receive() ([]netlink.Message, error) {
	for end := <-w.deadline; ; {
		select {
		case end = <-w.deadline:
		case <-time.After(time.Until(end)):
			return nil, os.ErrDeadlineExceeded
		}
	}
}

func TestListenEndsWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), silence/2)
		defer cancel()
		begin := time.Now()
		err := (&follower{}).listen(ctx, &waiting{deadline: make(chan time.Time, 1)})
		if took := time.Since(begin); took != silence/2 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it listened for %s, error %v", took, err)
		}
	})
}

// chatter never falls silent.
type chatter struct{ recording }

func (c *chatter) Receive() ([]netlink.Message, error) {
	time.Sleep(silence / 10)
	return make([]netlink.Message, 1), nil
}

func TestListenEndsAmongOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, begin := follower{}, time.Now()
		if err := f.listen(t.Context(), &chatter{}); err != nil || f.result().Fate != Unseen {
			t.Errorf("%s, error %v", f.result().Fate, err)
		}
		if took := time.Since(begin); took != total {
			t.Errorf("it listened for %s", took)
		}
	})
}

// Anybody may have written a rule's userdata.
func TestCommentIn(t *testing.T) {
	const other = userdata.Type(0x5a)
	for _, test := range []struct {
		data []byte
		want string
	}{
		{nil, ""},
		{userdata.AppendString(nil, userdata.TypeComment, "zwrm: host"), "zwrm: host"},
		{userdata.AppendString(userdata.AppendString(nil, other, "x"), userdata.TypeComment, "behind"), "behind"},
		{userdata.AppendString(nil, other, "x"), ""},
		{[]byte{0, 3, 'a', 'b', 'c'}, "abc"},
		{[]byte{0, 4, 'a', 'b', 'c'}, ""},
		{[]byte{0}, ""},
	} {
		if got := commentIn(test.data); got != test.want {
			t.Errorf("the comment in %q is %q, want %q", test.data, got, test.want)
		}
	}
}

func TestReason(t *testing.T) {
	for _, test := range []struct {
		step Step
		want string
	}{
		{Step{Family: Inet, Table: "zwrm", Chain: "forward", Comment: "zwrm: egress-denied"}, "egress-denied"},
		{Step{Family: IPv4, Table: "filter", Chain: "ZWRM-PRIVATE", Comment: "zwrm: app web"}, "app"},
		{Step{Family: IPv4, Table: "filter", Chain: "FORWARD", Comment: "zwrm: hook"}, ""},
		{Step{Family: Inet, Table: "theirs", Chain: "forward", Comment: "zwrm: forged"}, ""},
		{Step{Family: IPv4, Table: "zwrm", Chain: "forward", Comment: "zwrm: forged"}, ""},
		{Step{Family: Inet, Table: "zwrm", Chain: "forward", Comment: "by hand"}, ""},
	} {
		if got := test.step.Reason(); string(got) != test.want {
			t.Errorf("the reason of %q is %q, want %q", test.step, got, test.want)
		}
	}
}

// Whatever a message holds, reading it takes nothing from beyond its end.
func FuzzDecode(f *testing.F) {
	for _, line := range []string{"01", "0100000008000f0000000002", "0200001708000100726177000f000200"} {
		data, err := hex.DecodeString(line)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(_ *testing.T, data []byte) {
		m := netlink.Message{Data: data}
		_, _ = decodeEvent(m)
		_, _ = decodeComment(m)
		_, _, _ = decodeChain(m)
	})
}

package trace

import (
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// answers gives an answer to each request, the last one again and again.
type answers struct {
	socket
	all []answer
}

type answer struct {
	messages []netlink.Message
	err      error
}

func (a *answers) SetReadDeadline(time.Time) error { return nil }

func (a *answers) SendMessages(m []netlink.Message) ([]netlink.Message, error) { return m, nil }

func (a *answers) Receive() ([]netlink.Message, error) {
	next := a.all[0]
	if len(a.all) > 1 {
		a.all = a.all[1:]
	}
	return next.messages, next.err
}

// listed is a chain as the kernel lists it.
func listed(t *testing.T, table, name string, flags netlink.HeaderFlags) netlink.Message {
	t.Helper()
	m, err := request(unix.NFT_MSG_NEWCHAIN, unix.NFPROTO_IPV4, flags, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_CHAIN_TABLE, table)
		e.String(unix.NFTA_CHAIN_NAME, name)
		e.String(unix.NFTA_CHAIN_TYPE, "nat")
		e.Nested(unix.NFTA_CHAIN_HOOK, func(e *netlink.AttributeEncoder) error {
			e.Uint32(unix.NFTA_HOOK_HOOKNUM, unix.NF_INET_POST_ROUTING)
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A list that changed while it was read is not used, and one that cannot be had says
// whether there is anything to list.
func TestPlaces(t *testing.T) {
	whole := answer{messages: []netlink.Message{listed(t, "nat", "POSTROUTING", 0), listed(t, "nat", "ZWRM-NAT", 0)}}
	cut := answer{messages: []netlink.Message{listed(t, "nat", "POSTROUTING", 0), listed(t, "raw", "PREROUTING", netlink.DumpInterrupted)}}
	for _, test := range []struct {
		what    string
		answers []answer
		chains  int
		ours    bool
		says    string
	}{
		{"at once", []answer{whole}, 2, true, ""},
		{"at the third time", []answer{cut, cut, whole}, 2, true, ""},
		{"never", []answer{cut}, 0, false, "they changed"},
		{"without nf_tables", []answer{{err: unix.EOPNOTSUPP}}, 0, false, ""},
		{"without nf_tables, older", []answer{{err: unix.EINVAL}}, 0, false, ""},
		{"refused", []answer{{err: unix.EPERM}}, 0, false, unix.EPERM.Error()},
		{"broken", []answer{{messages: make([]netlink.Message, 1)}}, 0, false, "too short"},
	} {
		got, err := (&conn{socket: &answers{all: test.answers}}).places()
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: error is %v", test.what, err)
		}
		if len(got) != test.chains || got.ours() != test.ours {
			t.Errorf("%s: chains are %v", test.what, got)
		}
		if at, ok := got[chain{IPv4, "nat", "POSTROUTING"}]; ok && at != (place{Postrouting, true}) {
			t.Errorf("%s: the place is %v", test.what, at)
		}
	}
}

// A rule that is gone has no comment, and one that cannot be read is no good.
func TestAddComments(t *testing.T) {
	_, rules := recorded(t, "nftables_other_app.txt")
	step := Step{Family: Inet, Table: "zwrm", Chain: "private", Handle: 30, Verdict: Drop}
	for _, test := range []struct {
		what    string
		answer  answer
		comment string
		says    string
	}{
		{"there", answer{messages: rules[1:]}, "zwrm: other-app", ""},
		{"gone", answer{err: unix.ENOENT}, "", ""},
		{"refused", answer{err: unix.EPERM}, "", `rule 30 of chain "private" in table "zwrm"`},
	} {
		r := Result{Deciding: step, Steps: []Step{step, {Handle: 0, Verdict: Accept}}}
		err := (&conn{socket: &answers{all: []answer{test.answer}}}).addComments(&r)
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: error is %v", test.what, err)
		}
		if r.Steps[0].Comment != test.comment || r.Deciding.Comment != test.comment || r.Steps[1].Comment != "" {
			t.Errorf("%s: comments are %+v", test.what, r)
		}
	}
}

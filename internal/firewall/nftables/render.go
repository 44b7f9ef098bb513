package nftables

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"zwrm/internal/firewall"
	"zwrm/internal/model"
)

// rule is a rule of ours in its two forms, and what is kept beside it.
type rule struct {
	text        string // as nft would write it, without the comment
	comment     string
	expressions []expr.Any
	userdata    []byte // as the kernel gives it back: comment, text and a hash of the expressions
}

// Types of what we keep in a rule's userdata beside the comment, for which nft has
// type 0. nft leaves types alone that it does not know.
const (
	textType userdata.Type = 0x5a + iota
	hashType
)

// maxUserdata is NFT_USERDATA_MAXLEN (linux/netfilter/nf_tables.h) in bytes.
const maxUserdata = 256

// render returns the table that has the meaning of the rules, but for those that the
// kernel cannot keep. The rules of apps become elements of a set, which one rule asks.
func render(rules firewall.Ruleset, able abilities) (table, error) {
	baseRules, apps := rules.SplitApps()
	t := table{apps: apps, set: len(baseRules.Stage(firewall.Private, firewall.Both)) > 0}
	asking := askingStage(baseRules)
	for _, p := range places() {
		c := chain{Chain: p.chain}
		stage := baseRules.Stage(p.stage, firewall.Both)
		if len(stage) == 0 {
			continue
		}
		if t.set && p.stage == asking {
			r, err := sameApp()
			if err != nil {
				return table{}, err
			}
			c.rules = append(c.rules, r)
		}
		for _, r := range stage {
			if r.Packet == firewall.ForeignMAC && !able.matchMAC {
				continue
			}
			rendered, err := renderRule(r)
			if err != nil {
				return table{}, fmt.Errorf("render rule %q: %w", r, err)
			}
			c.rules = append(c.rules, rendered)
		}
		t.chains = append(t.chains, c)
	}
	if n := len(apps); n > setSize {
		return table{}, tooMany(n)
	}
	if !t.set && len(apps) > 0 {
		return table{}, errors.New("there are rules of apps, and no other rule in their stage")
	}
	return t, nil
}

// askingStage returns the stage that begins with the rule that asks for apps. It
// belongs to Private. When nothing that Forward asks before drops a packet from one TAP
// of an app to another, it comes first of all: it is what most packets between VMs look
// for.
func askingStage(rules firewall.Ruleset) firewall.Stage {
	vms := firewall.Devices{VMs: true}
	for _, r := range rules.Stage(firewall.Forward, firewall.IPv4) {
		neutral := r.To.Group == model.GroupUnassigned || r.To.Stray || r.Verdict == firewall.Accept
		if r.Verdict == firewall.AskPrivate {
			r.Reason = ""
			if r == (firewall.Rule{Stage: firewall.Forward, Family: firewall.IPv4, From: vms, To: vms, Verdict: firewall.AskPrivate}) {
				return firewall.Forward
			}
		}
		if !neutral {
			break
		}
	}
	return firewall.Private
}

// sameApp returns the one rule that lets the VMs of every app reach each other.
func sameApp() (rule, error) {
	b := builder{}
	if err := b.family(firewall.Rule{Family: firewall.IPv4}); err != nil {
		return rule{}, err
	}
	b.match("iifgroup . oifgroup @"+string(setName),
		&expr.Meta{Key: expr.MetaKeyIIFGROUP, Register: unix.NFT_REG_1},
		&expr.Meta{Key: expr.MetaKeyOIFGROUP, Register: unix.NFT_REG32_01}, // the second 4 bytes of NFT_REG_1
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: string(setName)})
	if err := b.verdict(firewall.Accept); err != nil {
		return rule{}, err
	}
	return b.rule(mark + string(firewall.SameApp))
}

func renderRule(r firewall.Rule) (rule, error) {
	b := builder{}
	if err := b.family(r); err != nil {
		return rule{}, err
	}
	b.devices("iif", expr.MetaKeyIIFGROUP, expr.MetaKeyIIFNAME, r.From)
	b.devices("oif", expr.MetaKeyOIFGROUP, expr.MetaKeyOIFNAME, r.To)
	b.prefix("saddr", sourceOffset, r.Source)
	if r.Packet == firewall.ToGuest {
		b.guestOf(r.Dest)
	} else {
		b.prefix("daddr", destOffset, r.Dest)
	}
	if err := b.packet(r.Packet); err != nil {
		return rule{}, err
	}
	if err := b.service(r.Service); err != nil {
		return rule{}, err
	}
	if r.Verdict == firewall.Drop {
		b.match("counter", &expr.Counter{})
	}
	if err := b.verdict(r.Verdict); err != nil {
		return rule{}, err
	}
	return b.rule(comment(r))
}

// comment is the same as in the rules of iptables.
func comment(r firewall.Rule) string {
	if r.App != "" {
		return mark + string(r.Reason) + " " + string(r.App)
	}
	return mark + string(r.Reason)
}

func appComment(app firewall.App) string { return comment(firewall.AppRule(app)) }

// builder puts a rule together, in both forms at once.
type builder struct {
	words       []string
	expressions []expr.Any
}

func (b *builder) match(text string, expressions ...expr.Any) {
	b.words = append(b.words, text)
	b.expressions = append(b.expressions, expressions...)
}

// rule returns what was put together. The kernel never changes a rule, so the hash
// of what it was given tells whether it is that of this version of zwrmd.
func (b *builder) rule(comment string) (rule, error) {
	r := rule{text: strings.Join(b.words, " "), comment: comment, expressions: b.expressions}
	hash := sha256.New()
	for _, x := range b.expressions {
		data, err := expr.Marshal(unix.NFPROTO_INET, x)
		if err != nil {
			return rule{}, err
		}
		hash.Write(data)
	}
	r.userdata = userdata.AppendString(nil, userdata.TypeComment, r.comment)
	r.userdata = userdata.AppendString(r.userdata, textType, r.text)
	r.userdata = userdata.Append(r.userdata, hashType, hash.Sum(nil)[:8])
	if len(r.userdata) > maxUserdata {
		return rule{}, fmt.Errorf("the text and the comment of the rule take %d bytes, and the kernel keeps %d", len(r.userdata), maxUserdata)
	}
	return r, nil
}

func (b *builder) verdict(v firewall.Verdict) error {
	switch v {
	case firewall.Accept:
		b.match("accept", &expr.Verdict{Kind: expr.VerdictAccept})
	case firewall.Drop:
		b.match("drop", &expr.Verdict{Kind: expr.VerdictDrop})
	case firewall.AskGuest:
		b.match("jump "+string(GuestChain), &expr.Verdict{Kind: expr.VerdictJump, Chain: string(GuestChain)})
	case firewall.AskPrivate:
		b.match("jump "+string(PrivateChain), &expr.Verdict{Kind: expr.VerdictJump, Chain: string(PrivateChain)})
	case firewall.Untrack:
		b.match("notrack", &expr.Notrack{})
	case firewall.Masquerade:
		b.match("masquerade", &expr.Masq{})
	default:
		return fmt.Errorf("nftables has no verdict for %q", v)
	}
	return nil
}

// service compares the destination port.
func (b *builder) service(s model.Service) error {
	var number byte
	switch s.Protocol {
	case "":
		return nil
	case model.TCP:
		number = unix.IPPROTO_TCP
	case model.UDP:
		number = unix.IPPROTO_UDP
	default:
		return fmt.Errorf("nftables has no match for protocol %q", s.Protocol)
	}
	b.protocol(number)
	b.match(fmt.Sprintf("%s dport %d", s.Protocol, s.Port),
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		equal([]byte{byte(s.Port >> 8), byte(s.Port)}))
	return nil
}

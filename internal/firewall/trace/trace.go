package trace

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
	"zwrm/internal/firewall"
)

var (
	// ErrLegacy says that nf_tables, the only one that tells of packets, holds no rule
	// of ours: iptables-legacy keeps them, or nobody does.
	ErrLegacy = errors.New("no rule of ZWRM is in nf_tables: either there are none, or they are in iptables-legacy, of whose rules the kernel tells nothing")
	// ErrBusy says that another process traces a packet at this moment.
	ErrBusy = errors.New("another trace is under way, which takes two seconds at most: try again")
)

const (
	// silence is how long the kernel says nothing about a packet that nothing more
	// happens to. It tells of a rule while it asks it.
	silence = 500 * time.Millisecond
	// total bounds the whole: a program that a rule gave the packet to (nfqueue) may
	// take its time, and packets of others keep the kernel from being silent.
	total = 2 * time.Second
)

// Probe is a packet to follow.
type Probe struct {
	Packet
	Device string // that the host receives it by; empty: the host itself sends it
}

// Verdict is what a rule says of a packet.
type Verdict string

// The verdicts. Accept ends the chains of one table at one hook, no more.
const (
	Accept   Verdict = "accept"
	Drop     Verdict = "drop"
	Continue Verdict = "continue" // the next rule
	Jump     Verdict = "jump"     // to Step.To, and back
	Goto     Verdict = "goto"     // to Step.To
	Return   Verdict = "return"   // to the chain that called, or to the policy
	Queue    Verdict = "queue"    // a program decides
	Stolen   Verdict = "stolen"   // the rule keeps the packet
)

// Hook is a point on a packet's way at which the kernel asks chains, as nft names it.
type Hook string

// The hooks that an IPv4 packet may come by.
const (
	Prerouting  Hook = "prerouting"
	Input       Hook = "input"
	Forward     Hook = "forward"
	Output      Hook = "output"
	Postrouting Hook = "postrouting"
)

// Family is a family of tables, as nft names it.
type Family string

// The families that an IPv4 packet may meet; iptables-nft has its tables in the second.
const (
	Inet Family = "inet"
	IPv4 Family = "ip"
)

// Step is what one rule said, or the end of a chain.
type Step struct {
	Family  Family
	Table   string
	Chain   string
	Hook    Hook
	Handle  uint64 // of the rule; 0: none of the chain ended it, and so its policy does, or it returns
	Comment string // of the rule; empty: it has none, or it is gone
	Verdict Verdict
	To      string // the chain of Jump and Goto
}

// mark begins the comment of every rule of ours.
const mark = "zwrm: "

// Ours reports whether the step is in a chain of ZWRM. The names are those of packages
// nftables and iptables.
func (s Step) Ours() bool {
	return s.Family == Inet && s.Table == "zwrm" || s.Family == IPv4 && strings.HasPrefix(s.Chain, "ZWRM-")
}

// Reason returns what a rule of ours is for, empty for other steps.
func (s Step) Reason() firewall.Reason {
	text, marked := strings.CutPrefix(s.Comment, mark)
	if !s.Ours() || !marked {
		return ""
	}
	reason, _, _ := strings.Cut(text, " ") // of an app's own rule its name follows
	return firewall.Reason(reason)
}

// String returns the step as in `ip filter FORWARD: rule 7 "zwrm: hook": jump
// ZWRM-FORWARD` and "inet zwrm forward: policy: accept".
func (s Step) String() string {
	what := "end of chain"
	switch {
	case s.Handle != 0 && s.Comment != "":
		what = fmt.Sprintf("rule %d %q", s.Handle, s.Comment)
	case s.Handle != 0:
		what = fmt.Sprintf("rule %d", s.Handle)
	case s.Verdict == Accept || s.Verdict == Drop:
		what = "policy"
	}
	text := fmt.Sprintf("%s %s %s: %s: %s", s.Family, s.Table, s.Chain, what, s.Verdict)
	if s.To != "" {
		text += " " + s.To
	}
	return text
}

// Fate is what became of the packet.
type Fate string

// The fates.
const (
	Dropped   Fate = "dropped"   // by Result.Deciding, of ours or not
	Sent      Fate = "sent"      // all rules let it pass, and it went to the device Result.Out: to lo, from the host to itself
	Delivered Fate = "delivered" // all rules let it pass, and it is for the host itself
	Taken     Fate = "taken"     // the rule Result.Deciding gave it to a program, or kept it, and it did not come back
	// Lost: no rule of nf_tables dropped it, and yet it got no further than
	// Result.Steps tell. The kernel has no route for it, does not forward, or takes its
	// address for an impossible one; or iptables-legacy has rules.
	Lost Fate = "lost"
	// Unseen: it did not even come to the first rule. It was not for the host's
	// Ethernet address, or something before the rules took it, such as XDP or tc.
	Unseen Fate = "unseen"
)

// Result is what the kernel did with the packet.
type Result struct {
	Fate Fate
	// Deciding is the step that decided: the one that dropped or took the packet, and
	// of a packet that passed the last rule of ours that accepted it. Zero: none did.
	Deciding    Step
	Masqueraded bool   // a rule of ours gave it the address of the device it left by
	Out         int    // index of the device that it left by; 0: it did not
	Steps       []Step // in the order in which the kernel asked
}

// Run has a packet sent, by send, and returns what the kernel's rules said of it. It
// takes two seconds at most and what send takes. One Run at a time is possible in a
// network namespace, which is that of the calling thread.
//
// Nothing of it is left when it returns, also early by ctx or an error of send, which
// it returns as it is. The hook, which may be nil, is told of what it changes.
func Run(ctx context.Context, hook effect.Hook, probe Probe, send func() error) (Result, error) {
	result, err := run(ctx, hook, probe, send, []uint32{flagOwner, 0})
	if err != nil {
		return Result{}, fmt.Errorf("trace a packet from %s to %s: %w", probe.Source, probe.Dest, err)
	}
	return result, nil
}

// run tries the flags of the table one after the other: not every kernel knows them.
func run(ctx context.Context, hook effect.Hook, probe Probe, send func() error, flags []uint32) (_ Result, err error) {
	if !probe.Source.Is4() || !probe.Dest.Is4() || probe.ID == 0 {
		return Result{}, errors.New("it is not IPv4, or has no identification")
	}
	if err := ctx.Err(); err != nil {
		return Result{}, context.Cause(ctx)
	}
	reader, err := dial(0, hook)
	if errors.Is(err, unix.EPROTONOSUPPORT) { // a kernel without nfnetlink
		return Result{}, ErrLegacy
	}
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	places, err := reader.places()
	if err != nil {
		return Result{}, err
	}
	if !places.ours() {
		return Result{}, ErrLegacy
	}
	listener, err := dial(traceGroup, hook)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, listener.Close()) }()
	marks, err := newTable(reader, probe, flags)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, marks.remove()) }()
	if err := send(); err != nil {
		return Result{}, err
	}
	f := follower{places: places}
	if err := f.listen(ctx, listener); err != nil {
		return Result{}, err
	}
	result := f.result()
	return result, reader.addComments(&result)
}

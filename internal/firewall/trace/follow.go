package trace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// traceGroup is the bit of the group by which the kernel tells of packets.
const traceGroup = 1 << (unix.NFNLGRP_NFTRACE - 1)

// event is one thing that the kernel tells of a packet (NFT_MSG_TRACE).
type event struct {
	id   uint32 // of the packet
	out  int    // index of the device that it leaves by, if that is known yet
	step Step   // without hook and comment
}

func decodeEvent(m netlink.Message) (event, error) {
	var e event
	var kind, policy uint32 // NFT_TRACETYPE_*, NF_*
	err := each(m, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_TRACE_ID:
			e.id = a.Uint32()
		case unix.NFTA_TRACE_TYPE:
			kind = a.Uint32()
		case unix.NFTA_TRACE_OIF:
			e.out = int(a.Uint32())
		case unix.NFTA_TRACE_TABLE:
			e.step.Table = a.String()
		case unix.NFTA_TRACE_CHAIN:
			e.step.Chain = a.String()
		case unix.NFTA_TRACE_RULE_HANDLE:
			e.step.Handle = a.Uint64()
		case unix.NFTA_TRACE_POLICY:
			policy = a.Uint32()
		case unix.NFTA_TRACE_VERDICT:
			a.Nested(func(a *netlink.AttributeDecoder) error {
				for a.Next() {
					switch a.Type() {
					case unix.NFTA_VERDICT_CODE:
						e.step.Verdict = verdictOf(int32(a.Uint32()))
					case unix.NFTA_VERDICT_CHAIN:
						e.step.To = a.String()
					}
				}
				return nil
			})
		}
	})
	if err != nil {
		return event{}, err
	}
	e.step.Family = familyOf(m.Data[0])
	switch {
	case kind == unix.NFT_TRACETYPE_POLICY:
		e.step.Verdict = verdictOf(int32(policy))
	case e.step.Handle == 0: // the end of a chain, where kernels say continue, and some that it is a rule
		e.step.Verdict = Return
	}
	return e, nil
}

// verdictOf returns the verdict of a number: negative ones are of nf_tables
// (NFT_CONTINUE ...), others of netfilter (NF_DROP ...) with more in their upper bits,
// such as the number of a queue.
func verdictOf(code int32) Verdict {
	if code < 0 {
		switch code {
		case unix.NFT_JUMP:
			return Jump
		case unix.NFT_GOTO:
			return Goto
		case unix.NFT_RETURN:
			return Return
		}
		return Continue
	}
	verdicts := []Verdict{Drop, Accept, Stolen, Queue} // linux/netfilter.h
	if code &= 0xff; int(code) < len(verdicts) {
		return verdicts[code]
	}
	return Verdict(fmt.Sprintf("verdict %d", code))
}

// follower puts together what the kernel tells of one packet.
type follower struct {
	places places

	marked     bool // our rule has seen the packet
	id         uint32
	at         place // of the chain that the kernel called last
	fate       Fate
	steps      []Step
	deciding   Step
	out        int
	masquerade bool
}

// take takes in an event and reports whether the packet's fate is known.
func (f *follower) take(e event) (known bool) {
	step := e.step
	own := step.Family == Inet && step.Table == ownTable
	switch {
	case !f.marked:
		f.marked, f.id = own && step.Handle != 0, e.id // the one rule there matches no other packet
		return false
	case e.id != f.id:
		return false
	case own:
		return f.passed(e)
	}
	if at := f.places[chain{step.Family, step.Table, step.Chain}]; at != (place{}) {
		f.at = at
		if step.Verdict == Return && step.Handle == 0 {
			return false // the chain's policy is the next step
		}
	}
	step.Hook = f.at.hook
	f.steps = append(f.steps, step)
	switch {
	case step.Verdict == Drop:
		f.fate, f.deciding = Dropped, step
		return true
	case step.Verdict != Accept || step.Handle == 0 || !step.Ours():
	case f.at.nat:
		f.masquerade = true
	default:
		f.deciding = step
	}
	return false
}

// passed takes in that the packet came to a chain of ours.
func (f *follower) passed(e event) (known bool) {
	switch Hook(e.step.Chain) {
	case Input:
		f.fate = Delivered
	case Postrouting:
		f.fate, f.out = Sent, e.out
	}
	return f.fate != ""
}

// result returns what is known when nothing more is told.
func (f *follower) result() Result {
	r := Result{Fate: f.fate, Deciding: f.deciding, Masqueraded: f.masquerade, Out: f.out, Steps: f.steps}
	if r.Fate != "" {
		return r
	}
	r.Fate, r.Deciding = Lost, Step{}
	switch last := len(f.steps) - 1; {
	case !f.marked:
		r.Fate = Unseen
	case last >= 0 && slices.Contains([]Verdict{Queue, Stolen}, f.steps[last].Verdict):
		r.Fate, r.Deciding = Taken, f.steps[last]
	}
	return r
}

// listen takes in what the kernel tells until the packet's fate is known or nothing
// more is told.
func (f *follower) listen(ctx context.Context, s socket) error {
	end := time.Now().Add(total)
	// The deadline of the past ends a read that waits.
	defer context.AfterFunc(ctx, func() { _ = s.SetReadDeadline(time.Unix(1, 0)) })()
	for now := time.Now(); now.Before(end); now = time.Now() {
		quiet := now.Add(silence)
		if quiet.After(end) {
			quiet = end
		}
		if err := s.SetReadDeadline(quiet); err != nil {
			return err
		}
		if ctx.Err() != nil { // what ended before the deadline was set does not end this one
			return context.Cause(ctx)
		}
		messages, err := s.Receive()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return context.Cause(ctx) // nil in silence
		case errors.Is(err, unix.ENOBUFS):
			return errors.New("the kernel told more than could be read, since others trace packets as well: try again")
		case err != nil:
			return fmt.Errorf("listen to the kernel: %w", err)
		}
		for _, m := range messages {
			if m.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_TRACE {
				continue
			}
			e, err := decodeEvent(m)
			if err != nil {
				return err
			}
			if f.take(e) {
				return nil
			}
		}
	}
	return context.Cause(ctx)
}

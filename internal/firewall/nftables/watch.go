package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"zwrm/internal/firewall/nftables/nfnetlink"
)

// Change is a transaction that changed tables of nf_tables, those of iptables-nft
// among them. The zero Change says that some were missed.
type Change struct {
	PID     int    // of the thread that made it
	Program string // its name, of 15 bytes at most
}

// Attributes of NFT_MSG_NEWGEN that golang.org/x/sys/unix does not have
// (linux/netfilter/nf_tables.h).
const (
	generationPID  = 2 // NFTA_GEN_PROC_PID
	generationName = 3 // NFTA_GEN_PROC_NAME
)

const (
	// changesKept is how many changes wait for a slow reader before some become one.
	changesKept = 64
	// watchBuffer is how many bytes of notices wait in the kernel, some 4,000 of them.
	watchBuffer = 4 << 20
)

// Watch tells of every transaction in the network namespace of the calling thread,
// until ctx ends, which closes the channel. A slow reader holds nothing up: when
// too many wait, different ones become a zero Change.
func Watch(ctx context.Context) (<-chan Change, error) {
	s, err := listen()
	if err != nil {
		return nil, fmt.Errorf("watch nf_tables: %w", err)
	}
	changes := make(chan Change, changesKept)
	stop := context.AfterFunc(ctx, func() { _ = s.Close() }) // ends Receive
	go func() {
		defer stop()
		pass(ctx, s, changes)
	}()
	return changes, nil
}

// receiver is the part of a *netlink.Conn that notices come by.
type receiver interface {
	Receive() ([]netlink.Message, error)
}

// pass tells of what is received until ctx ends.
func pass(ctx context.Context, from receiver, changes chan Change) {
	defer close(changes)
	for {
		messages, err := from.Receive()
		if ctx.Err() != nil {
			return
		}
		if err != nil { // ENOBUFS: the kernel had no room to tell
			tell(changes, Change{})
		}
		for _, m := range messages {
			tell(changes, changeOf(m))
		}
	}
}

// listen opens a socket that gets the notice that ends each transaction. The others,
// one for each rule and element, are kept from it: ours alone would fill any buffer.
func listen() (*netlink.Conn, error) {
	kind := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, uint16(nfnetlink.Type(unix.NFT_MSG_NEWGEN))))
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 2}, // nlmsg_type of struct nlmsghdr (linux/netlink.h)
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(kind), SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{},
	})
	if err != nil {
		return nil, fmt.Errorf("make a filter: %w", err)
	}
	s, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open a socket: %w", err)
	}
	if err := errors.Join(s.SetReadBuffer(watchBuffer), s.SetBPF(filter), s.JoinGroup(unix.NFNLGRP_NFTABLES)); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare a socket: %w", err), s.Close())
	}
	return s, nil
}

// changeOf returns what a notice tells, or a zero Change if it cannot be read.
func changeOf(m netlink.Message) Change {
	var c Change
	err := nfnetlink.Attributes([]netlink.Message{m}, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case generationPID:
			c.PID = int(a.Uint32())
		case generationName:
			c.Program = a.String()
		}
	})
	if err != nil {
		return Change{}
	}
	return c
}

// tell puts a change into the channel, to which nobody else sends. If that is full
// it makes room: the oldest and the new one become one.
func tell(changes chan Change, c Change) {
	for {
		select {
		case changes <- c:
			return
		default:
		}
		select {
		case oldest := <-changes:
			if oldest != c {
				c = Change{}
			}
		default: // a reader was faster
		}
	}
}

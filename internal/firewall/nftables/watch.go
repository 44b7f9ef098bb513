package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
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

// Watch tells of changes in the network namespace of the calling thread, until ctx
// ends, which closes the channel. While nobody reads it, changes become one.
func Watch(ctx context.Context) (<-chan Change, error) {
	s, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		return nil, fmt.Errorf("watch nf_tables: open a socket: %w", err)
	}
	if err := s.SetReadBuffer(bufferSize); err != nil {
		return nil, errors.Join(fmt.Errorf("watch nf_tables: raise the socket's buffer: %w", err), s.Close())
	}
	changes := make(chan Change, 1)
	stop := context.AfterFunc(ctx, func() { _ = s.Close() }) // ends Receive
	go func() {
		defer close(changes)
		defer stop()
		for ctx.Err() == nil {
			messages, err := s.Receive()
			if err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
			for _, change := range read(messages, err) {
				select {
				case changes <- change:
				case <-ctx.Done():
				}
			}
		}
	}()
	return changes, nil
}

// read returns the transactions that messages tell of.
func read(messages []netlink.Message, lost error) []Change {
	if lost != nil {
		return []Change{{}}
	}
	var all []Change
	for _, m := range messages {
		if m.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
			continue
		}
		var c Change
		err := each([]netlink.Message{m}, func(a *netlink.AttributeDecoder) {
			a.ByteOrder = binary.BigEndian
			switch a.Type() {
			case generationPID:
				c.PID = int(a.Uint32())
			case generationName:
				c.Program = a.String()
			}
		})
		if err != nil {
			c = Change{}
		}
		all = append(all, c)
	}
	return all
}

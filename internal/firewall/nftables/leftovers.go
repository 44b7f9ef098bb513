package nftables

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
	"zwrm/internal/firewall/nftables/nfnetlink"
)

// Leftovers opens what an earlier zwrmd may have left, in the network namespace of
// the calling thread, to be removed: nothing is asked for but the table, and nothing
// else can be done with it. It is nil on a kernel without nf_tables.
func Leftovers(ctx context.Context, hook effect.Hook) (*Dataplane, error) {
	return leftovers(ctx, nfnetlink.Dial, hook)
}

func leftovers(ctx context.Context, dial func() (nfnetlink.Socket, error), hook effect.Hook) (*Dataplane, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := dial()
	if errors.Is(err, unix.EPROTONOSUPPORT) { // a kernel without nfnetlink
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for a table of nftables: open a socket: %w", err)
	}
	d := &Dataplane{conn: nfnetlink.New(s), hook: hook}
	_, err = readHead(d.conn)
	if err == nil {
		return d, nil
	}
	closed := s.Close()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) { // nfnetlink without nf_tables
		return nil, closed
	}
	return nil, errors.Join(fmt.Errorf("look for a table of nftables: %w", err), closed)
}

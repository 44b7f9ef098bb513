package nftables

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"zwrm/internal/firewall/nftables/nfnetlink"
)

// Leftovers opens what an earlier zwrmd may have left, to be removed: nothing is
// asked for but the table. It is nil on a kernel without nf_tables.
func Leftovers(context.Context) (*Dataplane, error) {
	s, err := nfnetlink.Dial()
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for a table of nftables: open a socket: %w", err)
	}
	d := &Dataplane{conn: nfnetlink.New(s)}
	if _, err := readHead(d.conn); err != nil {
		closed := s.Close()
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) { // nfnetlink without nf_tables
			return nil, closed
		}
		return nil, errors.Join(fmt.Errorf("look for a table of nftables: %w", err), closed)
	}
	return d, nil
}

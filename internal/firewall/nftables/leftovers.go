package nftables

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Leftovers opens what an earlier zwrmd may have left, to be removed: nothing is
// asked for but the table. It is nil on a kernel without nf_tables.
func Leftovers(context.Context) (*Dataplane, error) {
	s, err := dial()
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for a table of nftables: open a socket: %w", err)
	}
	d := &Dataplane{conn: &conn{socket: s}}
	if _, err := d.conn.readTable(); err != nil {
		closed := s.Close()
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) { // nfnetlink without nf_tables
			return nil, closed
		}
		return nil, errors.Join(fmt.Errorf("look for a table of nftables: %w", err), closed)
	}
	return d, nil
}

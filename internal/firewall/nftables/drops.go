package nftables

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"zwrm/internal/firewall"
)

// Drops returns what the rules dropped, by reason: since they were first made, even
// if this process made them anew since. Every reason to drop is there, if with 0.
func (d *Dataplane) Drops(ctx context.Context) (firewall.Drops, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := d.observe(); err != nil {
		return nil, err
	}
	return d.tally.Sum(), nil
}

// observe reads the counters into the tally.
func (d *Dataplane) observe() error {
	now, err := d.conn.readDrops()
	if err != nil {
		return fmt.Errorf("read the counters of table %q: %w", ourTable, err)
	}
	d.tally.Observe(now)
	return nil
}

// readDrops reads the counters of the rules that drop.
func (c *conn) readDrops() (firewall.Drops, error) {
	found, err := c.readTable()
	if err != nil || !found.ours {
		return firewall.Drops{}, err
	}
	answer, err := c.get(unix.NFT_MSG_GETRULE, netlink.Dump, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_RULE_TABLE, string(ourTable))
	})
	if err != nil {
		return nil, err
	}
	drops := firewall.Drops{}
	for _, m := range answer {
		var reason string
		var count firewall.Count
		var counted bool
		err := each([]netlink.Message{m}, func(a *netlink.AttributeDecoder) {
			switch a.Type() {
			case unix.NFTA_RULE_USERDATA:
				reason = strings.TrimPrefix(text(a.Bytes(), userdata.TypeComment), mark)
			case unix.NFTA_RULE_EXPRESSIONS:
				a.Nested(func(a *netlink.AttributeDecoder) error {
					for a.Next() {
						a.Nested(func(a *netlink.AttributeDecoder) error {
							counted = readCounter(a, &count) || counted
							return nil
						})
					}
					return nil
				})
			}
		})
		if err != nil {
			return nil, err
		}
		if counted && reason != "" {
			drops.Add(firewall.Reason(reason), count)
		}
	}
	return drops, nil
}

// readCounter takes in an expression, if it is a counter.
func readCounter(a *netlink.AttributeDecoder, count *firewall.Count) (counted bool) {
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_EXPR_NAME:
			counted = a.String() == "counter"
		case unix.NFTA_EXPR_DATA:
			if !counted {
				continue
			}
			a.Nested(func(a *netlink.AttributeDecoder) error {
				for a.Next() {
					switch a.Type() {
					case unix.NFTA_COUNTER_BYTES:
						count.Bytes = a.Uint64()
					case unix.NFTA_COUNTER_PACKETS:
						count.Packets = a.Uint64()
					}
				}
				return nil
			})
		}
	}
	return counted
}

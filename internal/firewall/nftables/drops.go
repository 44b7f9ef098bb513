package nftables

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/nftables/userdata"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/nftables/nfnetlink"
)

// Drops returns what the rules dropped, by reason: since the table was made that
// was there at first, and in every one made in its place since. Every reason to
// drop is there, if with 0. What a table that others deleted had dropped since it
// was last looked at is lost. The elements of apps are not read.
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

// observe reads the counters into the tally. Those of another table than last time
// began at 0, whoever made it, and even if they are past the old ones by now.
func (d *Dataplane) observe() error {
	var head snapshot
	var rules []nfnetlink.Rule
	err := together(d.conn, func() (err error) {
		rules = nil
		if head, err = readHead(d.conn); err != nil || !head.ours {
			return err
		}
		rules, err = d.conn.Rules(ourTable)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the counters of table %q: %w", ourTable, err)
	}
	now := firewall.Drops{}
	for _, r := range rules {
		reason, ours := strings.CutPrefix(nfnetlink.Text(r.Userdata, userdata.TypeComment), mark)
		if ours && r.Counter != nil {
			now.Add(firewall.Reason(reason), firewall.Count(*r.Counter))
		}
	}
	if head.Handle != d.counted {
		d.tally.Reset()
		d.counted = head.Handle
	}
	d.tally.Observe(now)
	return nil
}

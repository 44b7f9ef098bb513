package nftables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"zwrm/internal/effect"
	"zwrm/internal/firewall"
	"zwrm/internal/firewall/nftables/nfnetlink"
)

// The side effects of a Dataplane.
const (
	opWrite  effect.Op = "nftables.write"
	opApps   effect.Op = "nftables.change-apps"
	opRemove effect.Op = "nftables.remove"
)

// Dataplane keeps rules in the kernel. It is safe for concurrent use.
type Dataplane struct {
	version string
	able    abilities
	hook    effect.Hook // of transactions

	mu      sync.Mutex // one change at a time; guards what follows
	conn    *nfnetlink.Conn
	tally   firewall.Tally
	counted uint64 // handle of the table whose counters the tally has seen last
	applied bool
	want    table // as last applied, and apps added and removed since
	inSync  bool  // the kernel held want when last seen
}

// Version returns what serves the rules, as in "nf_tables of Linux 6.18.44".
func (d *Dataplane) Version() string { return d.version }

// Losses says what of the rules' safety this kernel cannot give, for people.
func (d *Dataplane) Losses() []string {
	var losses []string
	if d.able.flags == 0 {
		losses = append(losses, "the table is anybody's with root: this kernel cannot keep it for its owner alone and beyond the owner's death "+
			"(flags owner and persist, Linux 6.9), so `nft flush ruleset` and the like delete it until the next repair")
	}
	if !d.able.matchMAC {
		losses = append(losses, "guests may send with a forged Ethernet source address: this kernel lacks the match \"bpf\" in nftables "+
			"(CONFIG_NFT_COMPAT and CONFIG_NETFILTER_XT_MATCH_BPF)")
	}
	return losses
}

// Close lets go of the table, which stays as it is. Others may change it then.
func (d *Dataplane) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applied, d.inSync = false, false
	return d.conn.Close()
}

// Preflight returns a *ForeignError when the table is there and is not ours. It
// changes nothing.
func (d *Dataplane) Preflight(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	found, err := readHead(d.conn)
	if err != nil {
		return err
	}
	return found.foreign()
}

// Apply brings the kernel to exactly these rules, owned by this process, and
// changes nothing if it is there. A table that a zwrmd left behind which ended or
// was killed is taken over as it is; one that differs is made anew. Either is one
// transaction, so there is no moment in which a packet finds half of the rules. A
// *ForeignError changes nothing.
func (d *Dataplane) Apply(ctx context.Context, want firewall.Ruleset) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	rendered, err := render(want, d.able)
	if err != nil {
		return err
	}
	d.applied, d.inSync, d.want = true, false, rendered
	return d.apply()
}

// apply writes the table where it differs and reads back what came of it. What is
// read decides, not whether writing reported an error: the answer may have been
// lost (ENOBUFS, EINTR), and somebody may have been faster. So it writes twice at
// most.
func (d *Dataplane) apply() error {
	var failed error
	for try := 0; ; try++ {
		found, err := read(d.conn)
		if err != nil {
			return errors.Join(failed, err)
		}
		if err := errors.Join(found.foreign(), d.foreignOwner(found)); err != nil {
			return err
		}
		wrong := differences(d.want, found)
		left := slices.Concat(wrong, d.unprotected(found))
		switch {
		case len(left) == 0:
			d.inSync = true
			return nil
		case try == 2 && failed != nil:
			return fmt.Errorf("write table %q: %w", ourTable, failed)
		case try == 2:
			return fmt.Errorf("write table %q: %s is %s although %s was written", ourTable, left[0].Object, left[0].Found, left[0].Wanted)
		}
		b := d.batch(found, len(wrong) == 0)
		if len(wrong) > 0 {
			// Counters begin again. Rules come first: if these cannot be read they are lost.
			_ = d.observe()
		}
		failed = d.commit(opWrite, b)
	}
}

// commit makes the changes of a batch, or none of them.
func (d *Dataplane) commit(op effect.Op, b nfnetlink.Batch) error {
	return effect.Do(d.hook, op, func() error { return d.conn.Commit(b) })
}

// batch returns the transaction after which the kernel holds what it should.
func (d *Dataplane) batch(found snapshot, onlyFlags bool) nfnetlink.Batch {
	var b nfnetlink.Batch
	if onlyFlags && found.Flags|nfnetlink.FlagOwner == d.able.flags {
		b.ChangeTable(ourTable, d.able.flags, tableUserdata()) // takes over a table without owner
		return b
	}
	if found.Handle != 0 {
		b.DeleteTable(found.Handle)
	}
	b.NewTable(ourTable, d.able.flags, tableUserdata())
	d.want.fill(&b, ourTable)
	return b
}

// Diff returns what is not as wanted: one rule, chain, element or flag each.
func (d *Dataplane) Diff(ctx context.Context, want firewall.Ruleset) ([]firewall.Difference, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rendered, err := render(want, d.able)
	if err != nil {
		return nil, err
	}
	found, err := read(d.conn)
	if err != nil {
		return nil, err
	}
	if err := found.foreign(); err != nil {
		return nil, err
	}
	all := slices.Concat(differences(rendered, found), d.unprotected(found))
	if len(all) > 0 {
		d.inSync = false // the next change of apps looks before it writes
	}
	return all, nil
}

// Remove removes our table. A foreign one of its name stays.
func (d *Dataplane) Remove(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	d.applied, d.inSync = false, false
	var failed error
	for try := 0; ; try++ {
		found, err := readHead(d.conn)
		if err != nil {
			return errors.Join(failed, err)
		}
		if !found.ours {
			return nil
		}
		if err := d.foreignOwner(found); err != nil {
			return err
		}
		if try == 2 {
			return fmt.Errorf("delete table %q: %w", ourTable, failed)
		}
		var b nfnetlink.Batch
		b.DeleteTable(found.Handle)
		failed = d.commit(opRemove, b)
	}
}

// Dump returns our table in the form of `nft -s list table inet zwrm`, or "" if
// there is none. Rules and chains of others in it are told in comments.
func (d *Dataplane) Dump(ctx context.Context) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return "", err
	}
	found, err := read(d.conn)
	if err != nil || !found.ours {
		return "", err
	}
	return found.String(), nil
}

func (d *Dataplane) unprotected(found snapshot) []firewall.Difference {
	x := &differ{}
	x.protection(d.able.flags, d.conn.Port(), found)
	return x.out
}

// foreignOwner returns an error if another process holds the table, which then
// cannot be changed.
func (d *Dataplane) foreignOwner(found snapshot) error {
	if found.Flags&nfnetlink.FlagOwner != 0 && found.Owner != d.conn.Port() {
		return fmt.Errorf("table %q belongs to another process that runs (netlink port %d, most often its pid): stop the other zwrmd", ourTable, found.Owner)
	}
	return nil
}

func tooMany(apps int) error {
	return fmt.Errorf("%d apps have two VMs or more, and the set %q holds %d", apps, setName, setSize)
}

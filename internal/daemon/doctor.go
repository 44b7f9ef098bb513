package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"zwrm/internal/doctor"
	"zwrm/internal/preflight"
)

// Doctor says what on the host stands in the way. What cannot be found out is a
// finding as well: of a host that is ill, something may always be missing.
func (n network) Doctor(ctx context.Context) ([]doctor.Finding, error) {
	facts := n.daemon.facts(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return doctor.Examine(facts), nil
}

// facts gathers all that the doctor judges.
func (d *Daemon) facts(ctx context.Context) doctor.Facts {
	f := doctor.Facts{
		Config:    d.cfg,
		Started:   d.reconciler.Uplink(),
		Sysctls:   map[string]string{},
		Dataplane: d.dataplane.Version(),
		Losses:    d.dataplane.losses,
		VMM:       d.driver.Usable(),
		NoKVM:     d.driver.NoKVM(),
	}
	learn := func(err error) {
		if err != nil {
			f.Unknown = append(f.Unknown, err)
		}
	}
	var err error
	f.Host, err = d.hostNow(ctx)
	learn(err)
	for _, name := range doctor.Settings(d.uplink.Name) {
		value, err := d.kernel.Sysctl(name)
		switch {
		case err == nil:
			f.Sysctls[name] = value
		case !errors.Is(err, fs.ErrNotExist): // a kernel without it, or an interface that is gone
			learn(err)
		}
	}
	f.Neighbours, err = d.kernel.Neighbours(ctx)
	learn(err)
	vms, err := d.rows(ctx)
	learn(err)
	f.VMs = len(vms)
	// This reads the rules with the programs that zwrmd keeps them with, too.
	differences, err := d.reconciler.Check(ctx)
	learn(err)
	f.Drift = len(differences)
	var unknown []error
	f.Conflicts, unknown = d.neighbours.conflicts(ctx)
	f.Unknown = append(f.Unknown, unknown...)
	return f
}

// hostNow is what was looked at before the start, once more. The dataplane is not
// opened again: reading its rules tells enough.
func (d *Daemon) hostNow(ctx context.Context) (*preflight.Facts, error) {
	facts := &preflight.Facts{Root: os.Geteuid() == 0, TUN: openTUN()}
	var err error
	if facts.Links, err = d.kernel.Links(ctx); err != nil {
		return nil, fmt.Errorf("look at the host: %w", err)
	}
	if facts.Routes, err = d.kernel.Routes(ctx); err != nil {
		return nil, fmt.Errorf("look at the host: %w", err)
	}
	return facts, nil
}

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"

	"zwrm/internal/config"
	"zwrm/internal/host"
	"zwrm/internal/plan"
	"zwrm/internal/preflight"
	"zwrm/internal/store"
)

// inspect opens the kernel and the dataplane and compares the configuration with
// the host.
func (d *Daemon) inspect(ctx context.Context) (plan.Uplink, error) {
	facts := preflight.Facts{Root: os.Geteuid() == 0}
	var err error
	if d.kernel, err = host.Open(d.hook); err != nil {
		return plan.Uplink{}, err
	}
	if facts.Root { // others would only be told the same again
		facts.TUN = openTUN()
		facts.Users = checkUsers(d.cfg.VMM.UIDBase, d.cfg.Network.Layout.Capacity())
		d.dataplane, facts.Firewall = openDataplane(ctx, d.cfg.Network.Firewall, d.log, d.hook)
	}
	if facts.Links, err = d.kernel.Links(ctx); err != nil {
		return plan.Uplink{}, fmt.Errorf("look at the host: %w", err)
	}
	if facts.Routes, err = d.kernel.Routes(ctx); err != nil {
		return plan.Uplink{}, fmt.Errorf("look at the host: %w", err)
	}
	if problems := preflight.Check(d.cfg, facts); len(problems) > 0 {
		return plan.Uplink{}, &config.Errors{Problems: problems}
	}
	uplink, _ := preflight.Uplink(d.cfg.Network, facts) // Check found no problem with it
	return uplink, nil
}

// checkSubnet refuses another subnet while VMs have addresses of the old one,
// and keeps the subnet for the next start to compare with.
func (d *Daemon) checkSubnet(ctx context.Context) error {
	now := d.cfg.Network.Layout.Subnet()
	was, err := d.store.Meta(ctx, store.Subnet)
	if err != nil {
		return err
	}
	if was == now.String() {
		return nil
	}
	state, err := d.store.State(ctx)
	if err != nil {
		return err
	}
	if len(state.VMs) > 0 {
		old, err := netip.ParsePrefix(was)
		if err != nil {
			return fmt.Errorf("read the subnet of the present VMs: %w", err)
		}
		return &config.Errors{Problems: []config.Problem{preflight.SubnetChanged(old, now)}}
	}
	return d.store.SetMeta(ctx, store.Subnet, now.String())
}

func openTUN() error {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// Check says what stands in the way of running with the configuration, without
// changing anything or minding a zwrmd that runs already. Problems of the host
// are a *config.Errors.
func Check(ctx context.Context, cfg config.Config) error {
	d := &Daemon{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	_, err := d.inspect(ctx)
	return errors.Join(err, d.Close())
}

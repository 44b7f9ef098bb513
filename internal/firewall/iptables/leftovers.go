package iptables

import (
	"context"
	"errors"
	"os/exec"

	"zwrm/internal/effect"
	"zwrm/internal/firewall"
	"zwrm/internal/firewall/xtables"
)

// Leftovers opens what an earlier zwrmd may have left, to be removed: nothing is
// asked of the kernel, and nothing written. It is nil where there are no programs.
func Leftovers(_ context.Context, hook effect.Hook) (*Dataplane, error) {
	runner := &xtables.Processes{}
	d := &Dataplane{runner: runner}
	for _, family := range []firewall.Family{firewall.IPv4, firewall.IPv6} {
		t, err := xtables.Find(exec.LookPath, runner, family, xtables.HostsChoice, hook)
		if errors.Is(err, exec.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		d.tools = append(d.tools, t)
	}
	if len(d.tools) == 0 {
		return nil, nil
	}
	return d, nil
}

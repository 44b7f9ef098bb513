package iptables

import (
	"context"
	"errors"
	"os/exec"
)

// Leftovers opens what an earlier zwrmd may have left, to be removed: nothing is
// asked of the kernel, and nothing written. It is nil where there are no programs.
func Leftovers(context.Context) (*Dataplane, error) {
	runner := &processes{}
	d := &Dataplane{runner: runner}
	for _, name := range []string{"iptables", "ip6tables"} {
		t, err := findTool(system{look: exec.LookPath, runner: runner}, name)
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

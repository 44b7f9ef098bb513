package foreign

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"

	"zwrm/internal/effect"
	"zwrm/internal/firewall"
	"zwrm/internal/firewall/xtables"
)

// writes bounds how often Apply and Remove write, when others change rules meanwhile.
const writes = 3

// Firewalls are the firewalls of others on this host. It is safe for concurrent use.
type Firewalls struct {
	sys  system
	tool *xtables.Tool // nil: there is no iptables
	want Want

	mu sync.Mutex // one change at a time
}

// system is what Firewalls are opened on.
type system struct {
	look    xtables.Look
	runner  xtables.Runner
	hook    effect.Hook
	variant xtables.Variant // the host's choice overruled
	// legacyTables lists the tables that iptables-legacy has, as the kernel does. To ask
	// the program for one makes it.
	legacyTables func() (string, error)
	nftChains    func() ([]NFTChain, error)
}

// Open finds the programs of iptables in PATH. That there are none is no error: then
// there is nothing to do. It changes nothing. The hook, which may be nil, is told of what
// the Firewalls change.
func Open(ctx context.Context, want Want, hook effect.Hook) (*Firewalls, error) {
	return open(ctx, want, system{
		look:   exec.LookPath,
		runner: &xtables.Processes{},
		hook:   hook,
		legacyTables: func() (string, error) {
			names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
			if errors.Is(err, os.ErrNotExist) { // a kernel without iptables-legacy
				err = nil
			}
			return string(names), err
		},
		nftChains: readNFT,
	})
}

func open(ctx context.Context, want Want, sys system) (*Firewalls, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := &Firewalls{sys: sys, want: want}
	tool, err := xtables.Find(sys.look, sys.runner, firewall.IPv4, sys.variant, sys.hook)
	switch {
	case errors.Is(err, exec.ErrNotFound):
	case err != nil:
		return nil, err
	default:
		f.tool = &tool
	}
	return f, nil
}

// Diff returns which accepts are missing, at another place than they should be, or too
// many.
func (f *Firewalls) Diff(ctx context.Context) ([]firewall.Difference, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	filter, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	return differences(f.want.plan(filter), filter), nil
}

// Apply makes the accepts that are needed and takes away all others of ours. It changes
// nothing of others, and nothing at all if all is as it should be. Our own rules must
// stand before.
func (f *Firewalls) Apply(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.bring(ctx, f.want); err != nil {
		return fmt.Errorf("have other firewalls let VMs pass: %w", err)
	}
	return nil
}

// Remove takes all accepts of ours away.
func (f *Firewalls) Remove(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.bring(ctx, Want{}); err != nil {
		return fmt.Errorf("take what lets VMs pass out of other firewalls: %w", err)
	}
	return nil
}

// bring writes until what is read is as it should be: somebody else may have been
// faster, and then the chains that a write names are not as they were.
func (f *Firewalls) bring(ctx context.Context, want Want) error {
	var failed error
	for try := 0; ; try++ {
		filter, err := f.read(ctx)
		if err != nil {
			return errors.Join(failed, err)
		}
		text := script(want.plan(filter), filter)
		switch {
		case text == "":
			return nil
		case try == writes && failed != nil:
			return failed
		case try == writes:
			return fmt.Errorf("somebody else changed the rules each of %d times", writes)
		}
		failed = f.tool.Restore(ctx, text)
	}
}

// read returns the table filter; nil if there is none.
func (f *Firewalls) read(ctx context.Context) (*xtables.Table, error) {
	if f.tool == nil {
		return nil, nil
	}
	text, err := f.tool.Save(ctx)
	if err != nil {
		return nil, err
	}
	filter := xtables.Parse(text)[xtables.Filter]
	if filter != nil && filter.Hidden {
		return nil, xtables.HiddenError(xtables.Filter)
	}
	return filter, nil
}

// Made reports whether a process was one of the last programs that were run here, so
// that a change of rules by it is no news.
func (f *Firewalls) Made(pid int) bool {
	p, ok := f.sys.runner.(*xtables.Processes)
	return ok && p.Ran(pid)
}

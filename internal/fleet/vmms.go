package fleet

import (
	"context"
	"time"

	"zwrm/internal/effect"
	"zwrm/internal/model"
	"zwrm/internal/vmm"
)

// VMMs starts VMMs, and finds those again that an earlier zwrmd started.
type VMMs interface {
	Start(ctx context.Context, spec vmm.Spec) (Process, error)
	// Find returns the VMMs in the folders of root, by the name of the folder.
	Find(root string) (map[string]model.Process, error)
	// Adopt returns a VMM by its identity; the error is vmm.ErrGone when it has ended.
	Adopt(id model.Process) (Process, error)
}

// Process is a VMM that runs, or did.
type Process interface {
	Identity() model.Process
	Done() <-chan struct{} // closed when it has ended
	Exit() string          // how it ended, when that is known
	Stop(ctx context.Context, grace time.Duration) error
}

// OnHost returns the VMMs of a driver, which are processes of this host. The hook, which
// may be nil, is told of signals to those that it adopts.
func OnHost(driver vmm.Driver, hook effect.Hook) VMMs { return processes{driver, hook} }

type processes struct {
	driver vmm.Driver
	hook   effect.Hook
}

func (p processes) Start(ctx context.Context, spec vmm.Spec) (Process, error) {
	process, err := p.driver.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	return process, nil
}

func (processes) Find(root string) (map[string]model.Process, error) { return vmm.Find(root) }

func (p processes) Adopt(id model.Process) (Process, error) {
	process, err := vmm.Adopt(id, p.hook)
	if err != nil {
		return nil, err
	}
	return process, nil
}

package model_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"zwrm/internal/fleet"
	"zwrm/internal/model"
	"zwrm/internal/vmm"
)

// vmms are VMMs in memory. They outlive every zwrmd, hold their TAP, and end when
// they are told to or die.
type vmms struct {
	seam *seam
	tap  func(name string) (index int, ok bool)       // of the link now
	plug func(name string) (tap io.Closer, err error) // opens it

	mu    sync.Mutex
	boot  int
	last  int // pid
	alive map[int]*process
	twice []string // starts that found the VM's TAP held by another
}

type process struct {
	vmms *vmms
	id   model.Process
	spec vmm.Spec
	tap  int // index of the link that it has open
	plug io.Closer
	done chan struct{}
}

// Start is fleet.VMMs'. As with a real one, the TAP must be there, and free.
func (v *vmms) Start(_ context.Context, spec vmm.Spec) (fleet.Process, error) {
	if err := v.seam.pass("start " + string(spec.Name)); err != nil {
		return nil, err
	}
	p, err := v.start(spec)
	if err != nil {
		return nil, err
	}
	v.seam.behind("start " + string(spec.Name))
	return p, nil
}

func (v *vmms) start(spec vmm.Spec) (*process, error) {
	index, ok := v.tap(spec.TAP)
	if !ok {
		return nil, fmt.Errorf("no TAP %q", spec.TAP)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, other := range v.alive {
		if other.tap == index || other.spec.Dir == spec.Dir {
			v.twice = append(v.twice, fmt.Sprintf("%s while %s runs", spec.Name, other.spec.Name))
			return nil, errors.New("TAP is busy")
		}
	}
	plug, err := v.plug(spec.TAP)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(spec.Dir, 0o700); err != nil {
		return nil, err
	}
	v.last++
	p := &process{v, model.Process{PID: v.last, StartTime: 1, BootID: fmt.Sprint(v.boot)}, spec, index, plug, make(chan struct{})}
	v.alive[v.last] = p
	return p, nil
}

// Find is fleet.VMMs'.
func (v *vmms) Find(root string) (map[string]model.Process, error) {
	if err := v.seam.pass("find VMMs"); err != nil {
		return nil, err
	}
	found := map[string]model.Process{}
	for _, p := range v.running() {
		if filepath.Dir(p.spec.Dir) == root {
			found[filepath.Base(p.spec.Dir)] = p.id
		}
	}
	return found, nil
}

// Adopt is fleet.VMMs'.
func (v *vmms) Adopt(id model.Process) (fleet.Process, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if p := v.alive[id.PID]; p != nil && p.id == id {
		return p, nil
	}
	return nil, fmt.Errorf("adopt process %d: %w", id.PID, vmm.ErrGone)
}

// running returns the VMMs that live, by pid.
func (v *vmms) running() []*process {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []*process
	for _, p := range v.alive {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *process) int { return a.id.PID - b.id.PID })
	return all
}

// reboot ends all at once; what comes later is of another boot.
func (v *vmms) reboot() {
	for _, p := range v.running() {
		p.end()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.boot++
}

// end ends the VMM, as a crash of it does.
func (p *process) end() {
	p.vmms.mu.Lock()
	defer p.vmms.mu.Unlock()
	if p.vmms.alive[p.id.PID] == p {
		delete(p.vmms.alive, p.id.PID)
		_ = p.plug.Close() // its link may be gone
		close(p.done)
	}
}

// Stop is fleet.Process's.
func (p *process) Stop(ctx context.Context, _ time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return p.vmms.seam.do("stop "+string(p.spec.Name), func() error { p.end(); return nil })
}

// Identity is fleet.Process's.
func (p *process) Identity() model.Process { return p.id }

// Done is fleet.Process's.
func (p *process) Done() <-chan struct{} { return p.done }

// Exit is fleet.Process's.
func (p *process) Exit() string { return "" }

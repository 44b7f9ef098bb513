package fleet

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"zwrm/internal/effect"
	"zwrm/internal/event"
	"zwrm/internal/image"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/store"
)

// Network opens and closes the networks of VMs.
type Network interface {
	// Begin holds off the full comparison of the network while rows and kernel
	// are changed together.
	Begin() (end func())
	// Make makes the networks of new VMs, closed; they need no rows yet. Open opens
	// them, or takes them away when it fails. Unmake gives them up.
	Make(ctx context.Context, vms ...model.VM) error
	Open(ctx context.Context, vms ...model.VM) error
	Unmake(vms ...model.VM)
	Reopen(ctx context.Context, vms ...model.VM) error // makes and opens those that were closed
	Close(ctx context.Context, vms ...model.VM) error
	Remove(ctx context.Context, vms ...model.VM) error
	// Spares returns the slots whose network is made ahead of a VM, and how many more
	// there are to be. Prepare makes that of a slot which is free, if there is room, and
	// reports whether it did.
	Spares() (ready []ipam.Slot, lack int)
	Prepare(ctx context.Context, slot ipam.Slot) (ready bool, err error)
	// Clean takes away what is left of networks that were removed. wait is how long
	// until there is more to do; 0: until the next Remove.
	Clean(ctx context.Context) (wait time.Duration, err error)
	// Unplugged returns those of the VMs whose TAP no VMM has open.
	Unplugged(ctx context.Context, vms ...model.VM) ([]model.VM, error)
}

// Images has the guest images.
type Images interface {
	Get(name model.Name) (image.Image, error)
	Remove(name model.Name) error
}

// Pinger finds out whether a guest answers.
type Pinger interface {
	Ping(ctx context.Context, guest netip.Addr) error
}

// Deps is what a Fleet works with.
type Deps struct {
	Store   *store.Store
	Network Network
	Images  Images
	VMMs    VMMs
	Pinger  Pinger
	Layout  ipam.Layout
	DNS     []netip.Addr
	MTU     func() int // bytes; of the TAPs, and thus of the guests
	Dir     string     // holds a folder for each VM
	UIDBase uint32     // the VM of slot n runs as this uid and gid plus n
	Events  *event.Log
	Log     *slog.Logger
	Timing  Timing
	// Started returns when a VMM began; nil: nobody knows.
	Started func(model.Process) (time.Time, error)
	Hook    effect.Hook // told of folders; nil: nobody is
}

// The side effects of a Fleet, beside those of what it works with.
const (
	opMakeRoot     effect.Op = "fleet.make-root-folder"
	opRemoveFolder effect.Op = "fleet.remove-folder"
)

// Timing is how long things take. The zero value of a field means its default.
type Timing struct {
	Quarantine time.Duration // a freed slot rests this long; 30 s
	Grace      time.Duration // a VMM has this long to end before it is killed; 5 s
	FirstRetry time.Duration // until a VM whose VMM died is started again; 1 s, then doubling
	LastRetry  time.Duration // the most it doubles to; 1 min
	Stable     time.Duration // a VM that ran this long starts over with FirstRetry; 1 min
	Tick       time.Duration // between two rounds of housekeeping; 5 s
	Stray      time.Duration // a VMM that no VM owns is left alone for as long; 10 min
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Quarantine, 30 * time.Second},
		{&t.Grace, 5 * time.Second},
		{&t.FirstRetry, time.Second},
		{&t.LastRetry, time.Minute},
		{&t.Stable, time.Minute},
		{&t.Tick, 5 * time.Second},
		{&t.Stray, 10 * time.Minute},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return t
}

// Fleet is every app of the host. Its methods are safe for concurrent use;
// requests for one app wait for each other, those for different apps do not.
type Fleet struct {
	Deps
	slots  *ipam.Allocator
	starts chan struct{} // as many VMMs start at once as it has room
	apps   keyed
	images sync.RWMutex // held shared while an app with an image is being written

	stir      chan struct{} // has room for a word to the one who keeps the stock of networks
	opened    atomic.Int64  // when a network was opened last, in nanoseconds since 1970
	brokenOff atomic.Bool   // a change, perhaps: an app is not as its row says
	rested    atomic.Bool   // there may be rows of slots whose quarantine is over

	mu       sync.Mutex
	machines map[model.VMID]*machine
	consoles []model.VMID       // of those, whose consoles are still to have their turn
	retries  map[model.VMID]int // failed starts in a row
	strays   map[string]stray   // by folder
	avoided  map[ipam.Slot]struct{}
	life     context.Context // of zwrmd; VMs outlive it
	work     sync.WaitGroup  // goroutines that end with life
}

// machine is a VM whose VMM runs.
type machine struct {
	process Process
	since   time.Time
}

// New returns a Fleet that watches its VMs until ctx ends. Load makes it know
// them.
func New(ctx context.Context, deps Deps) *Fleet {
	deps.Timing = deps.Timing.withDefaults()
	return &Fleet{
		Deps:     deps,
		life:     ctx,
		slots:    ipam.NewAllocator(deps.Layout.Capacity(), deps.Timing.Quarantine, time.Now),
		starts:   make(chan struct{}, 2*runtime.NumCPU()),
		stir:     make(chan struct{}, 1),
		apps:     keyed{locks: map[model.Name]*lock{}},
		machines: map[model.VMID]*machine{},
		retries:  map[model.VMID]int{},
		strays:   map[string]stray{},
		avoided:  map[ipam.Slot]struct{}{},
	}
}

// Slots returns how many slots VMs have, are free, and rest before reuse.
func (f *Fleet) Slots() (used, free, resting int) { return f.slots.Counts() }

// dir returns the VM's own folder.
func (f *Fleet) dir(id model.VMID) string {
	return filepath.Join(f.Dir, strconv.FormatInt(int64(id), 10))
}

// lockVM locks the VM's app and returns the VM as it is then.
func (f *Fleet) lockVM(ctx context.Context, name model.Name) (vm model.VM, unlock func(), err error) {
	if vm, err = f.VM(ctx, name); err != nil {
		return vm, nil, err
	}
	if unlock, err = f.apps.lock(ctx, vm.AppName); err != nil {
		return vm, nil, err
	}
	now, err := f.VM(ctx, name)
	if err == nil && now.App != vm.App {
		err = model.Problemf(model.Conflict, "VM %q was replaced by one of app %q meanwhile", name, now.AppName)
	}
	if err != nil {
		unlock()
		return vm, nil, err
	}
	return now, unlock, nil
}

// keyed is a set of locks by app name. A lock exists while somebody wants it.
type keyed struct {
	mu    sync.Mutex
	locks map[model.Name]*lock
}

type lock struct {
	held   chan struct{} // has room for the one who holds it
	wanted int
}

// lock waits for the app's lock, or for the end of ctx.
func (k *keyed) lock(ctx context.Context, name model.Name) (unlock func(), err error) {
	k.mu.Lock()
	l := k.locks[name]
	if l == nil {
		l = &lock{held: make(chan struct{}, 1)}
		k.locks[name] = l
	}
	l.wanted++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.wanted--; l.wanted == 0 {
			delete(k.locks, name)
		}
	}
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

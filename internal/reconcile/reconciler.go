package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"zwrm/internal/config"
	"zwrm/internal/event"
	"zwrm/internal/firewall"
	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
	"zwrm/internal/turn"
)

// Links is the part of the kernel that has TAPs.
type Links interface {
	Links(ctx context.Context) ([]host.Link, error)
	Weakened(ctx context.Context) ([]host.Link, error) // with other settings than those of a TAP
	LinksNamed(ctx context.Context, names ...string) ([]host.Link, error)
	Rename(ctx context.Context, from, to string) error
	CreateTAP(ctx context.Context, taps ...host.TAP) error
	Recycle(ctx context.Context, alias string, names ...string) ([]string, error)
	SetGroup(ctx context.Context, group model.Group, names ...string) error
	SetUp(ctx context.Context, up bool, names ...string) error
	DeleteLinks(ctx context.Context, names ...string) error
}

// Settings is the part of the kernel that is there once per host.
type Settings interface {
	EnsureBridge(ctx context.Context, name string, address netip.Prefix, alias string) error
	Sysctl(name string) (string, error)
	SetSysctl(name, value string) error
	Forget(ctx context.Context, guests ...netip.Addr) error
	ForgetBetween(ctx context.Context, subnet netip.Prefix) error
	ForgetOthers(ctx context.Context, subnet netip.Prefix, guests ...netip.Addr) error
}

// Firewall is a dataplane. AddApps and RemoveApps do what is still to be done: an
// app that has its rule, or has none to remove, costs nothing.
type Firewall interface {
	Apply(ctx context.Context, want firewall.Ruleset) error
	AddApps(ctx context.Context, apps ...firewall.App) error
	RemoveApps(ctx context.Context, apps ...firewall.App) error
	Diff(ctx context.Context, want firewall.Ruleset) ([]firewall.Difference, error)
	Remove(ctx context.Context) error
}

// Rows returns every VM that there should be; with slots, only those that have one of
// them.
type Rows func(ctx context.Context, slots ...ipam.Slot) ([]model.VM, error)

// Reconciler is the one writer of the kernel's network. Its methods are safe for
// concurrent use.
type Reconciler struct {
	network  config.Network
	links    Links
	settings Settings
	firewall Firewall
	rows     Rows
	events   *event.Log
	log      *slog.Logger

	syncing chan struct{} // has room for the one who compares and mends
	applied bool          // the firewall was given its rules; guarded by syncing, as is the next
	failed  int           // mendings in a row

	// changes is held shared by whoever changes rows and kernel together, and
	// alone by what mends links, which would take their half-way state for drift.
	changes sync.RWMutex

	docket docket // what is to be looked at

	// cleaning is held while what VMs left is cleaned away.
	cleaning sync.Mutex

	// rules is locked by whoever changes the firewall. Rules follow from the roster as it
	// stands then.
	rules turn.Shared[*ruling]

	mu       sync.Mutex // guards what follows
	uplink   plan.Uplink
	uplinkIs string // gone, down or up; empty: not looked yet
	roster   *roster
	touched  map[ipam.Slot]struct{} // changed by the short path since the last comparison
	stock    stock
	rebuilt  map[ipam.Slot]bool // TAPs that were missing; whether they are made anew
	pending  int                // links that are still to be done
	strays   strays
	fights   fights
	history  history
}

// Kernel is what a Reconciler works on.
type Kernel struct {
	Links    Links
	Settings Settings
	Firewall Firewall
}

// New returns a Reconciler. It does nothing until it is asked to.
func New(network config.Network, uplink plan.Uplink, kernel Kernel, rows Rows, events *event.Log, log *slog.Logger) *Reconciler {
	return &Reconciler{
		network: network, uplink: uplink, rows: rows, events: events, log: log,
		links: kernel.Links, settings: kernel.Settings, firewall: kernel.Firewall,
		syncing: make(chan struct{}, 1), touched: map[ipam.Slot]struct{}{}, stock: newStock(network.Pool), rebuilt: map[ipam.Slot]bool{},
		roster: newRoster(), fights: fights{open: map[string]*bout{}}, history: history{repairs: map[string]int{}, took: newDurations()},
	}
}

// Begin holds off the full comparison until the returned function is called. A
// change of rows together with Open, Close or Remove happens in between. While a
// Sync works on many links it waits for some of them, not for all.
func (r *Reconciler) Begin() (end func()) {
	r.changes.RLock()
	return r.changes.RUnlock
}

// Make makes the links of new VMs, closed, or sets spare ones aside for them. Their rows
// need not be there yet, and may be written at the same time; Open or Unmake follows. A
// crash before that leaves closed links of nobody, which the next start finds.
//
// A TAP that is there already is made anew, unless it is a spare one.
func (r *Reconciler) Make(ctx context.Context, vms ...model.VM) error {
	return r.provide(ctx, vms, true)
}

// provide is Make. What is there is used unless fresh.
func (r *Reconciler) provide(ctx context.Context, vms []model.VM, fresh bool) error {
	err := r.clean(ctx, r.claim(vms), nil)
	if err == nil {
		err = r.build(ctx, vms, fresh)
	}
	if err != nil {
		err = errors.Join(err, r.undo(ctx, vms))
	}
	return err
}

// Open lets the VMs, whose links were made, send and receive. The group is set last,
// behind the app's rule, so nothing passes before all is in place; a crash before that
// leaves closed links, which the next start finds by their rows. When a step fails,
// those before it are undone, and so is what Make did.
func (r *Reconciler) Open(ctx context.Context, vms ...model.VM) error {
	err := r.join(ctx, vms)
	if err == nil {
		err = r.assign(ctx, vms)
	}
	if errors.Is(err, host.ErrNoLink) && r.distrust(vms) { // somebody has deleted a spare one
		if err = r.build(ctx, vms, true); err == nil {
			err = r.assign(ctx, vms)
		}
	}
	if err != nil {
		return errors.Join(err, r.undo(ctx, vms), r.leave(context.WithoutCancel(ctx), vms))
	}
	r.settle(vms)
	return nil
}

// Reopen makes and opens the networks of VMs that had one before. What is left of that
// is used.
func (r *Reconciler) Reopen(ctx context.Context, vms ...model.VM) error {
	if err := r.provide(ctx, vms, false); err != nil {
		return err
	}
	return r.Open(ctx, vms...)
}

// build makes the links of VMs, but for those that are there as spare ones.
func (r *Reconciler) build(ctx context.Context, vms []model.VM, fresh bool) error {
	mtu := r.MTU()
	var made []host.TAP
	for _, vm := range r.given(vms, false) {
		tap := tap(plan.VM(r.network, mtu, vm))
		tap.Fresh = fresh
		made = append(made, tap)
	}
	if len(made) == 0 {
		return nil
	}
	if err := r.links.CreateTAP(ctx, made...); err != nil {
		return fmt.Errorf("open network of app %q: %w", vms[0].AppName, err)
	}
	return nil
}

// assign puts the VMs' links into the groups of their apps.
func (r *Reconciler) assign(ctx context.Context, vms []model.VM) error {
	for group, names := range byGroup(vms) {
		if err := r.links.SetGroup(ctx, group, names...); err != nil {
			return fmt.Errorf("open network of app %q: %w", vms[0].AppName, err)
		}
	}
	return nil
}

// Close cuts the VMs off, and removes their app's rule when it has fewer than two
// VMs left that may send. Their links stay, carrying nothing. One that somebody
// deleted is no error: it carries nothing either.
func (r *Reconciler) Close(ctx context.Context, vms ...model.VM) error {
	if len(vms) == 0 {
		return nil
	}
	r.touch(vms)
	if err := r.unassign(ctx, taps(vms)); err != nil {
		return fmt.Errorf("close network: %w", err)
	}
	return r.leave(ctx, vms)
}

// Remove gives up the networks of VMs that were closed, and their app's rule if a Close
// did not get that far. Links that are gone already are no error. What is left of them
// in the kernel, connections, neighbour entries and links, is taken away by Clean.
func (r *Reconciler) Remove(ctx context.Context, vms ...model.VM) error {
	r.touch(vms)
	if err := r.leave(ctx, vms); err != nil {
		return fmt.Errorf("remove network: %w", err)
	}
	r.soil(vms)
	return nil
}

// erase deletes closed links, and what the kernel remembers of their guests before
// and behind that. Without the first time, a peer's packets of an old connection
// would leave by the default route as soon as the link is gone. The second time is
// for a packet that was let through just before the link was closed: it notes its
// connection at the end of its way, and a link is gone when no packet is on one.
func (r *Reconciler) erase(ctx context.Context, names []string, guests []netip.Addr) error {
	if err := r.settings.Forget(ctx, guests...); err != nil {
		return err
	}
	if len(names) == 0 {
		return nil
	}
	if err := r.links.DeleteLinks(ctx, names...); err != nil {
		return err
	}
	return r.settings.Forget(ctx, guests...)
}

// Shutdown leaves the kernel without rules of ours, in the order that opens
// nothing: the links go down first. VMs keep running, cut off, until the next
// start opens their links again.
func (r *Reconciler) Shutdown(ctx context.Context) error {
	end, err := r.alone(ctx)
	if err != nil {
		return fmt.Errorf("shut the network down: %w", err)
	}
	defer end()
	r.changes.Lock()
	defer r.changes.Unlock()
	r.rules.Lock()
	defer r.rules.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	links, err := r.links.Links(ctx)
	if err != nil {
		return fmt.Errorf("shut the network down: %w", err)
	}
	var ours, bridges []string
	stock := tapsOf(slices.Collect(maps.Keys(r.stock.soiled)))
	for _, link := range links {
		if _, ok := ipam.ParseTAP(link.Name); ok && link.Group.Ours() {
			ours = append(ours, link.Name)
			if link.Alias == plan.SpareAlias {
				stock = append(stock, link.Name)
			}
		} else if ok && link.Kind == host.KindTAP && link.Group == model.GroupCondemned {
			stock = append(stock, link.Name)
		}
		if link.Kind == host.KindBridge && link.Alias == plan.BridgeAlias {
			bridges = append(bridges, link.Name)
		}
	}
	down := func(names ...string) error { return r.links.SetUp(ctx, false, names...) }
	err = errors.Join(r.unassign(ctx, ours), r.whereThere(ctx, ours, down), r.links.DeleteLinks(ctx, stock...))
	if err != nil {
		return fmt.Errorf("shut the network down: rules stay, since a link is still up: %w", err)
	}
	r.stock, r.roster = newStock(r.stock.size), newRoster()
	if err := r.firewall.Remove(ctx); err != nil {
		return fmt.Errorf("shut the network down: %w", err)
	}
	if err := r.links.DeleteLinks(ctx, bridges...); err != nil {
		return fmt.Errorf("shut the network down: %w", err)
	}
	return nil
}

// unassign closes the links that are there.
func (r *Reconciler) unassign(ctx context.Context, names []string) error {
	return r.whereThere(ctx, names, func(names ...string) error {
		return r.links.SetGroup(ctx, model.GroupUnassigned, names...)
	})
}

// whereThere changes links. When some are gone, it looks which are left, and
// changes those.
func (r *Reconciler) whereThere(ctx context.Context, names []string, change func(names ...string) error) error {
	err := change(names...)
	if !errors.Is(err, host.ErrNoLink) {
		return err
	}
	links, err := r.links.Links(ctx)
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(links))
	for _, link := range links {
		there[link.Name] = true
	}
	left := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !there[name] })
	return change(left...)
}

// undo removes the links that were made for VMs, and gives spare ones back. The request
// may have been given up, which is no reason to leave half of it behind.
func (r *Reconciler) undo(ctx context.Context, vms []model.VM) error {
	ctx = context.WithoutCancel(ctx)
	made, spare := r.given(vms, false), r.given(vms, true)
	r.settle(vms)
	err := r.links.DeleteLinks(ctx, taps(made)...) // a deleted link is closed, too
	return errors.Join(err, r.giveBack(ctx, taps(spare)))
}

func taps(vms []model.VM) []string {
	names := make([]string, len(vms))
	for i, vm := range vms {
		names[i] = vm.Slot.TAP()
	}
	return names
}

func byGroup(vms []model.VM) map[model.Group][]string {
	groups := map[model.Group][]string{}
	for _, vm := range vms {
		groups[vm.App.Group()] = append(groups[vm.App.Group()], vm.Slot.TAP())
	}
	return groups
}

// MTU returns the MTU of TAPs and guests, which follows the external interface's unless
// the configuration has one.
func (r *Reconciler) MTU() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return plan.MTU(r.network, r.uplink)
}

func tap(link plan.Link) host.TAP {
	return host.TAP{Name: link.Name, MAC: link.MAC, MTU: link.MTU, Address: link.Address, Alias: link.Alias}
}

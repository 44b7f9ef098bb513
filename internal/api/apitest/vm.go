package apitest

import (
	"cmp"
	"context"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"zwrm/internal/model"
	"zwrm/internal/wire"
)

// VMs returns all VMs, by app and number.
func (h *Host) VMs(context.Context) ([]model.VM, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.vms), h.faults["VMs"]
}

// AppVMs returns the VMs of an app, by number.
func (h *Host) AppVMs(_ context.Context, app model.AppID) ([]model.VM, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(h.vms), func(vm model.VM) bool { return vm.App != app }), h.faults["AppVMs"]
}

// VM returns one VM.
func (h *Host) VM(_ context.Context, name model.Name) (model.VM, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, vm := range h.vms {
		if vm.Name == name {
			return vm, h.faults["VM"]
		}
	}
	return model.VM{}, cmp.Or(h.faults["VM"], noVM(name))
}

// Restart gives a VM a new process.
func (h *Host) Restart(_ context.Context, name model.Name) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.faults["Restart"]; err != nil {
		return err
	}
	for i := range h.vms {
		if h.vms[i].Name == name {
			h.vms[i].Process.PID += 100
			return nil
		}
	}
	return noVM(name)
}

// Attach makes a network without a VMM.
func (h *Host) Attach(_ context.Context, name, app model.Name) (model.VM, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.faults["Attach"]; err != nil {
		return model.VM{}, err
	}
	if slices.ContainsFunc(h.vms, func(vm model.VM) bool { return vm.Name == name }) {
		return model.VM{}, model.Problemf(model.Conflict, "a VM named %q is there already", name)
	}
	slots, err := h.take(1)
	if err != nil {
		return model.VM{}, err
	}
	owner := h.appOrNew(app)
	h.apps[app] = owner
	return h.add(model.VM{App: owner.ID, AppName: app, Name: name, Slot: slots[0], Attachment: true}), nil
}

// Detach removes an attachment.
func (h *Host) Detach(_ context.Context, name model.Name) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.faults["Detach"]; err != nil {
		return err
	}
	is := func(vm model.VM) bool { return vm.Name == name && vm.Attachment }
	if !slices.ContainsFunc(h.vms, is) {
		return model.Problemf(model.NotFound, "no attachment named %q", name).WithHint("zwrm ps lists the attachments")
	}
	h.remove(is)
	return nil
}

// Say writes to the console of a VM.
func (h *Host) Say(name model.Name, text string) {
	h.mu.Lock()
	c := h.consoles[name]
	h.mu.Unlock()
	c.say(text)
}

// Console writes what a VM said, and with follow what it says until ctx ends.
func (h *Host) Console(ctx context.Context, name model.Name, w io.Writer, follow bool) error {
	h.mu.Lock()
	c, fault := h.consoles[name], h.faults["Console"]
	h.mu.Unlock()
	if c == nil {
		return noVM(name)
	}
	for from := 0; ; {
		text, more := c.read(from)
		if text != "" {
			if _, err := io.WriteString(w, text); err != nil {
				return err
			}
			from += len(text)
		}
		if fault != nil || !follow {
			return fault
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// console is what one VM said.
type console struct {
	mu   sync.Mutex
	text string
	more chan struct{} // closed by the next say
}

func newConsole() *console { return &console{more: make(chan struct{})} }

func (c *console) say(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text += text
	close(c.more)
	c.more = make(chan struct{})
}

func (c *console) read(from int) (text string, more <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text[from:], c.more
}

// network is the host's side of the network.
type network struct {
	differences []wire.Difference
	mended      int
	pending     int
	fights      []wire.Fight
	last        *wire.Repair
}

// Drift makes the kernel differ from what it should be.
func (h *Host) Drift(differences ...wire.Difference) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.network.differences = differences
}

// Pend has the network wait for TAPs that are still to be made.
func (h *Host) Pend(links int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.network.pending = links
}

// Fight has somebody change again and again what is mended.
func (h *Host) Fight(f wire.Fight) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.network.fights = append(h.network.fights, f)
}

// Status returns the state of the network.
func (h *Host) Status(context.Context) (wire.NetworkStatus, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return wire.NetworkStatus{
		Firewall:          "iptables",
		Dataplane:         "iptables v1.8.9 (nf_tables)",
		Losses:            []string{},
		Subnet:            h.layout.Subnet().String(),
		Capacity:          h.layout.Capacity(),
		Used:              len(h.vms),
		Spare:             64,
		ExternalInterface: "eth0",
		MTU:               1500,
		Private:           true,
		Bridge:            &wire.Bridge{Name: "zwrmd0", Address: "10.0.0.1/16"},
		Driver:            "qemu (kvm)",
		PendingLinks:      h.network.pending,
		Drift:             h.network.mended,
		LastRepair:        h.network.last,
		Fights:            append([]wire.Fight{}, h.network.fights...),
		Drops:             []wire.Drop{},
	}, h.faults["Status"]
}

// Check returns the differences.
func (h *Host) Check(context.Context) ([]wire.Difference, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.network.differences), h.faults["Check"]
}

// Repair mends the differences.
func (h *Host) Repair(context.Context) ([]wire.Difference, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.faults["Repair"]; err != nil {
		return nil, err
	}
	mended := h.network.differences
	h.network.differences = nil
	if len(mended) > 0 {
		h.network.mended += len(mended)
		h.network.last = &wire.Repair{At: Now(), Differences: mended}
	}
	return mended, nil
}

// number returns the number at the end of a VM's name, -1 of an attachment.
func number(vm model.VM) int {
	n, err := strconv.Atoi(strings.TrimPrefix(string(vm.Name), string(vm.AppName)+"-"))
	if err != nil {
		return -1
	}
	return n
}

func noVM(name model.Name) error {
	return model.Problemf(model.NotFound, "no VM named %q", name).WithHint("zwrm ps lists the VMs")
}

package model_test

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgregory.net/rapid"

	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
	"zwrm/internal/store"
)

// look compares everything with the model, and with the rest.
func (h *history) look(t *rapid.T) {
	h.rest()
	h.seen = nil
	h.seen = &seen{h.state(t), h.groups(t)}
	state := h.seen.state
	if got, want := rows(state), h.want.String(); got != want {
		t.Fatalf("there is\n%s\nasked for was\n%s", got, want)
	}
	open := h.states(t, state)
	h.slots(t, state)
	h.links(t, state)
	h.rules(t, open)
	h.processes(t, state)
	h.remembered(t, state)
	findings, err := h.net.Check(context.Background())
	must(t, err)
	if len(findings) != len(h.site.strays()) {
		t.Fatalf("kernel and plan differ: %v", findings)
	}
	if foreign, err := h.site.foreign(); err != nil || foreign != h.foreign {
		t.Fatalf("what is not ours was\n%s\nand is, %v,\n%s", h.foreign, err, foreign)
	}
}

// states checks that each VM runs that is not allowed not to, and returns how many
// may send and receive, by app.
func (h *history) states(t *rapid.T, state store.State) map[model.Group]int {
	t.Helper()
	open := map[model.Group]int{}
	for _, vm := range state.VMs {
		_, down := h.down[vm.Name]
		switch {
		case vm.State == model.Running:
			open[vm.App.Group()]++
		case vm.State == model.Failed && down && !vm.Attachment:
		default:
			t.Fatalf("VM %q is %s: %s", vm.Name, vm.State, vm.Reason)
		}
	}
	return open
}

// slots checks that no slot is given twice or before its rest is over, and that
// the allocator and the database agree.
func (h *history) slots(t *rapid.T, state store.State) {
	t.Helper()
	now := time.Now()
	owners := map[ipam.Slot]model.VMID{}
	for _, vm := range state.VMs {
		if other, twice := owners[vm.Slot]; twice || int(vm.Slot) >= h.cfg.Network.Layout.Capacity() {
			t.Fatalf("slot %d of VM %d is that of %d, or outside the subnet", vm.Slot, vm.ID, other)
		}
		owners[vm.Slot] = vm.ID
		if h.owners[vm.Slot] == vm.ID {
			continue
		}
		if until := h.resting[vm.Slot]; until.After(now) || h.owners[vm.Slot] != 0 {
			t.Fatalf("slot %d went from VM %d to VM %d although it rests until %s, and it is %s", vm.Slot, h.owners[vm.Slot], vm.ID, until, now)
		}
	}
	for slot := range h.owners {
		if owners[slot] == 0 {
			h.resting[slot] = h.looked.Add(quarantine)
		}
	}
	h.owners, h.looked = owners, now
	rests := 0
	for _, rest := range state.Released {
		if rest.Until.After(now) {
			rests++
		}
	}
	if used, free, resting := h.Slots(); used != len(owners) || resting != rests || used+free+resting != h.cfg.Network.Layout.Capacity() {
		t.Fatalf("%d slots used, %d free, %d rest; %d have rows, %d rest in the database", used, free, resting, len(owners), rests)
	}
}

// links checks that each VM has its link and no link has no VM.
func (h *history) links(t *rapid.T, state store.State) {
	t.Helper()
	all, err := h.site.kernel().Links(context.Background())
	must(t, err)
	found := map[string]host.Link{}
	bridges := 0
	for _, l := range all {
		if _, ok := ipam.ParseTAP(l.Name); ok && !slices.Contains(h.site.strays(), l.Name) {
			found[l.Name] = l
		}
		if l.Name == "zwrmd0" && l.Up {
			bridges++
		}
	}
	if (bridges == 1) != h.cfg.Network.Bridge.Enabled {
		t.Fatalf("%d bridges", bridges)
	}
	base := netip.MustParsePrefix(subnet).Addr().As4()
	for _, vm := range state.VMs {
		name := "zvm" + strconv.Itoa(int(vm.Slot))
		gateway := base
		gateway[3] += byte(4*vm.Slot + 1)
		group := 0x5a000000 + model.Group(vm.App)
		if vm.State == model.Failed {
			group = 0x5a000000
		}
		l := found[name]
		if l.Group != group || !l.Up || l.MTU != 1500 || !slices.Equal(l.Addresses, []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4(gateway), 30)}) || len(l.Hardening.Wrong) > 0 {
			t.Fatalf("link of VM %q, %s, slot %d, app %d: %+v", vm.Name, vm.State, vm.Slot, vm.App, l)
		}
		delete(found, name)
	}
	spare := 0
	for name, l := range found {
		if l.Alias == plan.SpareAlias && l.Group == model.GroupUnassigned && l.Up && l.MTU == 1500 && len(l.Hardening.Wrong) == 0 {
			spare++
			delete(found, name)
		}
	}
	if len(found) > 0 || spare > h.cfg.Network.Pool {
		t.Fatalf("links of no VM: %v, and %d spare ones", found, spare)
	}
}

// rules checks that exactly the apps with two VMs or more that may send have a rule.
func (h *history) rules(t *rapid.T, open map[model.Group]int) {
	t.Helper()
	have := h.groups(t)
	var want []model.Group
	for group, n := range open {
		if n >= 2 && h.cfg.Network.Bridge.Enabled {
			want = append(want, group)
		}
	}
	slices.Sort(want)
	if !slices.Equal(want, have) {
		t.Fatalf("groups with a rule: %v, want %v", have, want)
	}
}

// processes checks that each running VM has one VMM, which holds the TAP that
// there is now, and that there is no other VMM and no folder of no VM.
func (h *history) processes(t *rapid.T, state store.State) {
	t.Helper()
	if len(h.vmms.twice) > 0 {
		t.Fatalf("a VMM was started beside another: %q", h.vmms.twice)
	}
	want := map[model.Process]model.VM{}
	folders := map[string]bool{}
	for _, vm := range state.VMs {
		folders[strconv.Itoa(int(vm.ID))] = true
		if vm.State == model.Running && !vm.Attachment {
			want[vm.Process] = vm
		}
	}
	for _, p := range h.vmms.running() {
		vm, ok := want[p.id]
		if !ok || p.spec.Name != vm.Name || p.spec.TAP != vm.Slot.TAP() || p.spec.MemoryMiB != vm.Spec.MemoryMiB {
			t.Fatalf("VMM %d runs %+v; its row is %+v", p.id.PID, p.spec, vm)
		}
		if index, ok := h.vmms.tap(p.spec.TAP); !ok || index != p.tap {
			t.Fatalf("the VMM of %q holds a TAP that is gone", vm.Name)
		}
		delete(want, p.id)
	}
	if len(want) > 0 {
		t.Fatalf("VMs without VMM: %v", want)
	}
	entries, err := os.ReadDir(filepath.Join(h.dir, "vms"))
	must(t, err)
	for _, entry := range entries {
		if !folders[entry.Name()] {
			t.Fatalf("folder %q is of no VM", entry.Name())
		}
	}
}

// remembered checks that the kernel knows nothing of guests that are gone.
func (h *history) remembered(t *rapid.T, state store.State) {
	t.Helper()
	traces, err := h.site.traces()
	must(t, err)
	guests := map[netip.Addr]bool{}
	for _, vm := range state.VMs {
		guests[h.cfg.Network.Layout.Guest(vm.Slot)] = true
	}
	within := netip.MustParsePrefix(subnet)
	for _, trace := range traces {
		for word := range strings.FieldsSeq(trace) {
			address, err := netip.ParseAddr(strings.TrimSuffix(word, ","))
			if err == nil && within.Contains(address) && !guests[address] {
				t.Fatalf("the kernel remembers a guest that is gone, of %v: %s", slices.Collect(maps.Keys(guests)), trace)
			}
		}
	}
}

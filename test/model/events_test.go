package model_test

import (
	"context"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"

	"zwrm/internal/model"
)

// machine draws a VM whose VMM runs.
func (h *history) machine(t *rapid.T) *process {
	running := h.vmms.running()
	if len(running) == 0 {
		impossible(t, "no VMM runs")
	}
	return rapid.SampledFrom(running).Draw(t, "VMM")
}

// restart restarts a VM on the same slot.
func (h *history) restart(t *rapid.T) {
	p := h.machine(t)
	vm := p.spec.Name
	slot := h.vm(t, vm).Slot
	h.ask(t, request{about: h.vm(t, vm).AppName, want: h.want, remark: "restart " + string(vm), keeps: false,
		do: func(ctx context.Context) error { return h.Restart(ctx, vm) }})
	if now := h.vm(t, vm).Slot; now != slot {
		t.Fatalf("VM %q had slot %d and has %d", vm, slot, now)
	}
}

func (h *history) vm(t *rapid.T, name model.Name) model.VM {
	t.Helper()
	vm, err := h.store.VM(context.Background(), name)
	must(t, err)
	return vm
}

// dies ends a VMM. Its network is closed at once, and it is started again soon.
func (h *history) dies(t *rapid.T) {
	p := h.machine(t)
	fate := h.arm(t, well, well, well, fault, outage, crash)
	p.end()
	calm()
	op := h.seam.disarm()
	h.note("\tof %s, fate %s, struck %q", p.spec.Name, fate, op)
	h.down[p.spec.Name] = time.Now().Add(patience)
	switch {
	case fate == crash:
		h.diesAndBegins(t)
	case op != "":
		h.settle(t)
	default:
		if state := h.vm(t, p.spec.Name).State; state != model.Failed {
			t.Fatalf("VM %q is %s although its VMM is gone", p.spec.Name, state)
		}
	}
}

// passes lets time pass.
func (h *history) passes(t *rapid.T) {
	seconds := rapid.IntRange(1, 45).Draw(t, "seconds")
	fate := h.arm(t, well, well, well, fault, outage, crash)
	time.Sleep(time.Duration(seconds) * time.Second)
	calm()
	op := h.seam.disarm()
	h.note("\t%d seconds, fate %s, struck %q", seconds, fate, op)
	switch {
	case fate == crash:
		h.diesAndBegins(t)
	case op != "":
		h.settle(t)
	}
	now := time.Now()
	maps.DeleteFunc(h.down, func(_ model.Name, until time.Time) bool { return !until.After(now) })
}

// drift has somebody else change something, and zwrmd mend it.
func (h *history) drift(t *rapid.T) {
	tap := ""
	if vms := h.state(t).VMs; len(vms) > 0 {
		tap = rapid.SampledFrom(vms).Draw(t, "VM").Slot.TAP()
	}
	drifts := h.site.drifts()
	what := rapid.SampledFrom(slices.Sorted(maps.Keys(drifts))).Draw(t, "drift")
	before, whole := h.text(t), len(h.down) == 0
	if !drifts[what](t, tap) {
		impossible(t, "it changes nothing")
	}
	h.done.count("drift: " + what)
	fate := h.arm(t, well, well, well, fault, outage, crash, leave)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h.seam.left = cancel
	found, err := h.repair(ctx)
	op := h.seam.disarm()
	h.note("\t%s %s, fate %s, struck %q, found %d, %v", what, tap, fate, op, found, err)
	switch {
	case fate == crash:
		h.diesAndBegins(t)
	case op != "":
		h.settle(t)
	case err != nil:
		t.Fatalf("repair: %v", err)
	case found == 0:
		t.Fatalf("%s %s: not found", what, tap)
	}
	if whole {
		h.same(t, before)
	}
}

// mend repairs what is whole, which changes nothing.
func (h *history) mend(t *rapid.T) {
	before, pids := h.text(t), h.pids("")
	found, err := h.repair(context.Background())
	must(t, err)
	if found != 0 {
		t.Fatalf("%d things mended although nothing was broken", found)
	}
	h.same(t, before)
	if now := h.pids(""); !maps.Equal(now, pids) {
		t.Fatalf("VMMs were %v and are %v", pids, now)
	}
}

// finish ends zwrmd in one of the ways in which it ends, and starts another.
func (h *history) finish(t *rapid.T) {
	ways := map[string]func(*rapid.T){"crash": h.crash, "reboot": h.reboot, "stop": h.stop}
	way := rapid.SampledFrom(slices.Sorted(maps.Keys(ways))).Draw(t, "way")
	h.note("\tby %s", way)
	h.done.count("end: " + way)
	ways[way](t)
}

// stop ends zwrmd as systemd does, with the network shut or kept, and starts one
// that may be configured otherwise. VMMs do not notice.
func (h *history) stop(t *rapid.T) {
	keep := rapid.Bool().Draw(t, "keep the network")
	private := rapid.SampledFrom([]bool{true, true, true, false}).Draw(t, "private networking")
	pids, whole := h.pids(""), len(h.down) == 0
	fate := h.arm(t, well, well, well, fault, crash)
	err := h.quit()
	must(t, err)
	if !keep {
		err = h.net.Shutdown(context.Background())
	}
	op := h.seam.disarm()
	if err == nil && !keep && op == "" {
		h.shut(t)
	} else if err != nil && op == "" {
		t.Fatalf("shut down: %v", err)
	}
	_ = h.close() // what it does not write it has written before
	h.done.count("stop: " + string(fate))
	h.note("\tkeep %t, private %t, fate %s, struck %q, %v", keep, private, fate, op, err)
	h.configure(t, private)
	h.begins(t)
	if now := h.pids(""); whole && !maps.Equal(now, pids) {
		t.Fatalf("VMMs were %v and are %v", pids, now)
	}
}

// shut fails when something of ours is open after a clean stop.
func (h *history) shut(t *rapid.T) {
	t.Helper()
	links, err := h.site.kernel().Links(context.Background())
	must(t, err)
	for _, l := range links {
		if ours(l) && (l.Up || l.Group != model.GroupUnassigned) || l.Name == "zwrmd0" {
			t.Fatalf("open after a clean stop: %+v", l)
		}
	}
	if text, _, err := h.site.rules(); err != nil || text != "" {
		t.Fatalf("rules after a clean stop, %v:\n%s", err, text)
	}
}

// crash has zwrmd die while it does nothing. VMMs do not notice.
func (h *history) crash(t *rapid.T) {
	pids, whole := h.pids(""), len(h.down) == 0
	before := h.text(t)
	h.diesAndBegins(t)
	if now := h.pids(""); whole && !maps.Equal(now, pids) {
		t.Fatalf("VMMs were %v and are %v", pids, now)
	}
	if whole {
		h.same(t, before)
	}
}

// reboot leaves only the disk.
func (h *history) reboot(t *rapid.T) {
	h.dieNow()
	h.vmms.reboot()
	must(t, h.site.reboot())
	h.begins(t)
}

// traffic has a VM talk, so that the kernel knows connections of it.
func (h *history) traffic(t *rapid.T) {
	vms := h.state(t).VMs
	if len(vms) == 0 {
		impossible(t, "no VM")
	}
	vm := rapid.SampledFrom(vms).Draw(t, "VM")
	must(t, h.site.traffic(vm, h.cfg.Network.Layout.Guest(vm.Slot)))
}

// impossible has another action taken instead of one that cannot happen now.
func impossible(action *rapid.T, why string) { action.Skip(why) }

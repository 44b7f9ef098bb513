package powercut_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"zwrm/test/powercut/disk"
)

// unknown stands for a number that nobody outside knows yet.
const unknown = -1

// app is what an app should be. One of attachments only has no image and no row in
// world.
type app struct{ scale, memory int }

// vm is what a VM or an attachment should be.
type vm struct {
	app        string
	attachment bool
	slot       int
}

// world is what one client has made. Values are never changed: an operation makes a
// new one.
type world struct {
	apps   map[string]app
	vms    map[string]vm
	images map[string]bool
}

func (w world) clone() world {
	return world{maps.Clone(w.apps), maps.Clone(w.vms), maps.Clone(w.images)}
}

// kind is what an operation does.
type kind int

// The kinds of operation.
const (
	deploy kind = iota // a new app, or another memory, which restarts its VMs
	scale
	destroy
	attach
	detach
	addImage
	removeImage
	kinds
)

// operation is a request that changes something.
type operation struct {
	kind   kind
	name   string // of the app, attachment or image
	app    string // attach only
	scale  int
	memory int
}

// String returns the operation as somebody would type it.
func (o operation) String() string {
	switch o.kind {
	case deploy:
		return fmt.Sprintf("deploy %s --scale %d --memory %dM", o.name, o.scale, o.memory)
	case scale:
		return fmt.Sprintf("scale %s %d", o.name, o.scale)
	case attach:
		return fmt.Sprintf("attach %s --app %s", o.name, o.app)
	default:
		return map[kind]string{destroy: "destroy ", detach: "detach ", addImage: "image add ", removeImage: "image rm "}[o.kind] + o.name
	}
}

// choose returns an operation that is possible in the world. Names begin with that
// of the client, so that clients do not meet.
func (w world) choose(client string, random *rand.Rand) operation {
	for {
		o := operation{kind: kind(random.IntN(int(kinds))), name: client + "-" + string(rune('a'+random.IntN(2)))}
		a, isApp := w.apps[o.name]
		switch o.kind {
		case deploy:
			o.scale, o.memory = 1+random.IntN(3), 64<<random.IntN(2)
			if !isApp || a.memory != o.memory {
				return o
			}
		case scale:
			if o.scale = random.IntN(4); isApp && a.scale != o.scale {
				return o
			}
		case destroy:
			if w.inhabited(o.name) {
				return o
			}
		case attach, detach:
			o.app, o.name = o.name, fmt.Sprintf("%s-by-hand-%d", client, random.IntN(3))
			if _, there := w.vms[o.name]; there == (o.kind == detach) {
				return o
			}
		default:
			o.name = client + "-image"
			if w.images[o.name] == (o.kind == removeImage) {
				return o
			}
		}
	}
}

// inhabited reports whether there is an app of the name, be it of attachments only.
func (w world) inhabited(name string) bool {
	if _, ok := w.apps[name]; ok {
		return true
	}
	for _, vm := range w.vms {
		if vm.app == name {
			return true
		}
	}
	return false
}

// after returns the world that the operation makes. The slots of new VMs are unknown.
func (w world) after(o operation) world {
	w = w.clone()
	switch o.kind {
	case deploy:
		w.apps[o.name] = app{o.scale, o.memory}
		w.populate(o.name)
	case scale:
		w.apps[o.name] = app{o.scale, w.apps[o.name].memory}
		w.populate(o.name)
	case destroy:
		delete(w.apps, o.name)
		maps.DeleteFunc(w.vms, func(_ string, vm vm) bool { return vm.app == o.name })
	case attach:
		w.vms[o.name] = vm{app: o.app, attachment: true, slot: unknown}
	case detach:
		delete(w.vms, o.name)
	case addImage:
		w.images[o.name] = true
	case removeImage:
		delete(w.images, o.name)
	}
	return w
}

// populate brings the VMs to what their app wants.
func (w world) populate(name string) {
	want := w.apps[name]
	for i := range want.scale {
		vmName := fmt.Sprintf("%s-%d", name, i)
		if _, ok := w.vms[vmName]; !ok {
			w.vms[vmName] = vm{app: name, slot: unknown}
		}
	}
	maps.DeleteFunc(w.vms, func(vmName string, vm vm) bool {
		return vm.app == name && !vm.attachment && vmName >= fmt.Sprintf("%s-%d", name, want.scale)
	})
}

// step is one operation of a client.
type step struct {
	operation
	begin, ack disk.Moment
	acked      bool
	at         time.Time // of the acknowledgement
	before     world
	after      world
}

// history is what a client has done since the power came, one after the other.
type history struct {
	client string
	start  world
	steps  []step
}

// at returns the worlds that may be there when the power goes at the moment, and
// what was last begun then. An operation that nobody has acknowledged is done or is
// not.
func (h history) at(moment disk.Moment) ([]world, string) {
	now := h.start
	for _, s := range h.steps {
		switch {
		case s.acked && s.ack <= moment:
			now = s.after
		case s.begin < moment:
			return []world{now, s.after}, s.String()
		default:
			return []world{now}, "nothing"
		}
	}
	return []world{now}, "nothing"
}

// differences returns what of the found world is not as wanted, a line each.
func (w world) differences(found world) string {
	var lines []string
	compare(&lines, "app", w.apps, found.apps, func(a, b app) bool { return a == b })
	compare(&lines, "VM", w.vms, found.vms, func(want, is vm) bool {
		if want.slot == unknown {
			want.slot = is.slot
		}
		return want == is
	})
	compare(&lines, "image", w.images, found.images, func(a, b bool) bool { return a == b })
	return strings.Join(lines, "\n")
}

func compare[T any](lines *[]string, what string, want, found map[string]T, same func(want, is T) bool) {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if is, ok := found[name]; !ok {
			*lines = append(*lines, fmt.Sprintf("%s %q is lost", what, name))
		} else if !same(want[name], is) {
			*lines = append(*lines, fmt.Sprintf("%s %q is %+v, not %+v", what, name, is, want[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if _, ok := want[name]; !ok {
			*lines = append(*lines, fmt.Sprintf("%s %q is back", what, name))
		}
	}
}

// of returns the part of the world that a client made.
func (w world) of(client string) world {
	w = w.clone()
	prefix := client + "-"
	maps.DeleteFunc(w.apps, func(name string, _ app) bool { return !strings.HasPrefix(name, prefix) })
	maps.DeleteFunc(w.vms, func(name string, _ vm) bool { return !strings.HasPrefix(name, prefix) })
	maps.DeleteFunc(w.images, func(name string, _ bool) bool { return !strings.HasPrefix(name, prefix) })
	return w
}

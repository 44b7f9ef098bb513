package reconcile

import (
	"cmp"
	"slices"

	"zwrm/internal/firewall"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// roster is which VMs may send and receive: what rules and groups of devices follow
// from. It is kept in memory, so that one VM's change reads nothing.
type roster struct {
	names   map[model.Group]model.Name
	members map[model.Group]map[ipam.Slot]struct{}
	home    map[ipam.Slot]model.Group
	ruled   map[model.Group]bool // apps whose rule stands, unless somebody else removed it
}

func newRoster() *roster {
	return &roster{map[model.Group]model.Name{}, map[model.Group]map[ipam.Slot]struct{}{}, map[ipam.Slot]model.Group{}, map[model.Group]bool{}}
}

func (r *roster) add(vm model.VM) {
	group := vm.App.Group()
	if r.members[group] == nil {
		r.members[group] = map[ipam.Slot]struct{}{}
	}
	r.names[group] = vm.AppName
	r.members[group][vm.Slot] = struct{}{}
	r.home[vm.Slot] = group
}

// remove takes a VM out. Its app stays, though it may be without a VM.
func (r *roster) remove(vm model.VM) {
	group := vm.App.Group()
	delete(r.members[group], vm.Slot)
	if r.home[vm.Slot] == group {
		delete(r.home, vm.Slot)
	}
}

// forget takes out an app that has no VM left.
func (r *roster) forget(group model.Group) {
	if len(r.members[group]) == 0 {
		delete(r.members, group)
		delete(r.names, group)
	}
}

// group returns the group that a slot's TAP is to be in, as far as VMs that may send
// and receive are concerned.
func (r *roster) group(slot ipam.Slot) model.Group {
	if group, ok := r.home[slot]; ok {
		return group
	}
	return model.GroupUnassigned
}

// social returns all apps that need a rule, ordered by group, as plan.Apps does.
func (r *roster) social() []firewall.App {
	var apps []firewall.App
	for group, members := range r.members {
		if len(members) >= 2 {
			apps = append(apps, firewall.App{Name: r.names[group], Group: group})
		}
	}
	slices.SortFunc(apps, func(a, b firewall.App) int { return cmp.Compare(a.Group, b.Group) })
	return apps
}

// unruled reports whether one of the VMs' apps needs a rule and may have none.
func (r *roster) unruled(vms []model.VM) bool {
	return slices.ContainsFunc(vms, func(vm model.VM) bool {
		group := vm.App.Group()
		return len(r.members[group]) >= 2 && !r.ruled[group]
	})
}

// setRuled notes that the rules of apps stand, or may not.
func (r *roster) setRuled(ruled bool, apps ...firewall.App) {
	for _, app := range apps {
		if ruled {
			r.ruled[app.Group] = true
		} else {
			delete(r.ruled, app.Group)
		}
	}
}

// split returns the apps of the VMs: those with two members or more, which need a
// rule, and those with fewer.
func (r *roster) split(vms []model.VM) (social, lonely []firewall.App) {
	seen := map[model.Group]bool{}
	for _, vm := range vms {
		app := firewall.App{Name: vm.AppName, Group: vm.App.Group()}
		switch {
		case seen[app.Group]:
		case len(r.members[app.Group]) >= 2:
			social = append(social, app)
		default:
			lonely = append(lonely, app)
		}
		seen[app.Group] = true
	}
	return social, lonely
}

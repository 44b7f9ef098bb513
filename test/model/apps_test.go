package model_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"zwrm/internal/model"
	"zwrm/internal/store"
)

// apps is the model: what was asked for, and nothing of how it is done.
type apps map[model.Name]app

// app is one app. It is there as long as it has an image or an attachment.
type app struct {
	memory   int // of each VM; 0: the app has no image
	scale    int
	attached []model.Name
}

// with returns the apps after one of them became another.
func (a apps) with(name model.Name, change func(*app)) apps {
	after := maps.Clone(a)
	changed := after[name]
	changed.attached = slices.Clone(changed.attached)
	change(&changed)
	if after[name] = changed; changed.memory == 0 && len(changed.attached) == 0 {
		delete(after, name)
	}
	return after
}

func (a apps) deploy(name model.Name, scale, memory int) apps {
	return a.with(name, func(app *app) { app.scale, app.memory = scale, memory })
}

func (a apps) scale(name model.Name, scale int) apps {
	return a.with(name, func(app *app) { app.scale = scale })
}

func (a apps) destroy(name model.Name) apps {
	return a.with(name, func(a *app) { *a = app{} })
}

func (a apps) attach(name model.Name, to model.Name) apps {
	return a.with(to, func(app *app) { app.attached = append(app.attached, name) })
}

func (a apps) detach(name model.Name) apps {
	return a.with(a.home(name), func(app *app) {
		app.attached = slices.DeleteFunc(app.attached, func(n model.Name) bool { return n == name })
	})
}

// home returns the app of an attachment, empty when there is no such attachment.
func (a apps) home(attachment model.Name) model.Name {
	for name, app := range a {
		if slices.Contains(app.attached, attachment) {
			return name
		}
	}
	return ""
}

// machines returns the names of all VMs that ZWRM runs.
func (a apps) machines() []model.Name {
	var names []model.Name
	for _, name := range slices.Sorted(maps.Keys(a)) {
		for i := range a[name].scale {
			names = append(names, name.VMName(i))
		}
	}
	return names
}

// String returns every app and VM on a line, as rows does.
func (a apps) String() string {
	var lines []string
	for name, app := range a {
		lines = append(lines, fmt.Sprintf("app %s scale %d memory %d", name, app.scale, app.memory))
		for i := range app.scale {
			lines = append(lines, fmt.Sprintf("%s: %s memory %d", name, name.VMName(i), app.memory))
		}
		for _, attachment := range app.attached {
			lines = append(lines, fmt.Sprintf("%s: %s attached", name, attachment))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// rows returns what the database says, in the words of the model.
func rows(state store.State) string {
	var lines []string
	for _, app := range state.Apps {
		lines = append(lines, fmt.Sprintf("app %s scale %d memory %d", app.Name, app.Spec.Scale, app.Spec.MemoryMiB))
	}
	for _, vm := range state.VMs {
		line := fmt.Sprintf("%s: %s attached", vm.AppName, vm.Name)
		if !vm.Attachment {
			line = fmt.Sprintf("%s: %s memory %d", vm.AppName, vm.Name, vm.Spec.MemoryMiB)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

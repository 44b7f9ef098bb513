package firewall

import (
	"errors"
	"slices"

	"zwrm/internal/model"
)

// ErrNotApplied says that an app was added to a dataplane, or removed, before the
// rules that its own is to be among.
var ErrNotApplied = errors.New("the firewall's rules were not applied yet")

// AppSet is which apps have a rule, by group. In a set of changes the zero App
// is none.
type AppSet map[model.Group]App

// Adding returns the changes that give the apps their rule.
func Adding(apps []App) AppSet {
	changes := AppSet{}
	for _, app := range apps {
		changes[app.Group] = app
	}
	return changes
}

// Removing returns the changes that take the apps' rule away.
func Removing(apps []App) AppSet {
	changes := AppSet{}
	for _, app := range apps {
		changes[app.Group] = App{}
	}
	return changes
}

// Change makes the changes.
func (s AppSet) Change(changes AppSet) {
	for group, app := range changes {
		if app == (App{}) {
			delete(s, group)
		} else {
			s[group] = app
		}
	}
}

// SplitApps takes the rules of apps out of a ruleset: a dataplane keeps them in a
// way of its own, since they come and go.
func (r Ruleset) SplitApps() (rest Ruleset, apps AppSet) {
	apps = AppSet{}
	rest.Rules = slices.DeleteFunc(slices.Clone(r.Rules), func(rule Rule) bool {
		app := App{Name: rule.App, Group: rule.From.Group}
		ours := rule.App != "" && rule == AppRule(app)
		if ours {
			apps[app.Group] = app
		}
		return ours
	})
	return rest, apps
}

package model

import (
	"fmt"
	"time"
)

// AppID numbers an app for as long as it exists. It has 24 bits, since it is the
// lower part of the device group of the app's TAPs. 0 is no app.
type AppID uint32

// MaxAppID is the largest AppID that fits a device group.
const MaxAppID AppID = 1<<24 - 1

// Group is a Linux device group (IFLA_GROUP): 32 bits that root sets on a network
// device and that the firewall compares. A guest can neither read nor change it.
type Group uint32

const (
	// GroupUnassigned marks a TAP of ours that belongs to no app. It carries nothing.
	GroupUnassigned Group = 0x5a000000
	// GroupCondemned is where TAPs of ours are right before all of it is deleted at
	// once. To the rules it is no group of ours: they drop whatever comes from or goes
	// to a TAP with a name of ours in such a group.
	GroupCondemned Group = 0x5bffffff
	// GroupMask selects the part of a Group that says "a TAP of ZWRM".
	GroupMask Group = 0xff000000
)

// Group returns the device group of the app's TAPs.
func (id AppID) Group() Group { return GroupUnassigned | Group(id) }

// Ours reports whether a device of this group is a TAP of ZWRM, assigned or not.
func (g Group) Ours() bool { return g&GroupMask == GroupUnassigned }

// Known reports whether it is ZWRM that puts devices into this group: TAPs of VMs, and
// those that are about to be deleted.
func (g Group) Known() bool { return g.Ours() || g == GroupCondemned }

// App returns the app of the group, 0 for GroupUnassigned and for foreign groups.
func (g Group) App() AppID {
	if !g.Ours() {
		return 0
	}
	return AppID(g &^ GroupMask)
}

// String returns the group as the firewall and ip(8) print it, as in "0x5a000001".
func (g Group) String() string { return fmt.Sprintf("0x%x", uint32(g)) }

// App is a set of microVMs that run one image and reach each other.
type App struct {
	ID        AppID
	Name      Name
	Spec      Spec
	CreatedAt time.Time
}

// Spec is what each microVM of an app is made of.
type Spec struct {
	Image     Name // empty: the app has attachments only
	Scale     int  // how many microVMs ZWRM runs; attachments do not count
	MemoryMiB int
	CPUs      int
}

package model

import (
	"time"

	"zwrm/internal/ipam"
)

// State is where a VM stands in its life.
type State string

// The states in the order of life. A VM whose row is deleted is gone.
const (
	Pending  State = "pending"  // row committed, nothing started yet
	Starting State = "starting" // network open, VMM being started
	Running  State = "running"  // VMM runs; of an attachment: network open
	Stopping State = "stopping" // network closed, VMM being stopped; the row goes last
	Failed   State = "failed"   // VMM gave up or died; network closed until it is started again
)

// Open reports whether a VM in this state may send and receive.
func (s State) Open() bool { return s == Pending || s == Starting || s == Running }

// VMID numbers a VM; it is never used twice.
type VMID int64

// VM is one microVM, or one attachment: a network for a VMM that somebody else runs.
type VM struct {
	ID         VMID
	App        AppID
	AppName    Name
	Name       Name
	Slot       ipam.Slot
	State      State
	Attachment bool
	Spec       Spec    // what this VM was started with; Scale is not used
	Process    Process // the VMM; zero when none was started
	Reason     string  // why it failed, for people
	CreatedAt  time.Time
}

// Process identifies a VMM process across restarts of zwrmd and reboots of the
// host. A pid alone may have been recycled; the three together may not.
type Process struct {
	PID       int
	StartTime uint64 // field 22 of /proc/PID/stat: clock ticks since boot
	BootID    string // /proc/sys/kernel/random/boot_id
}

package vmm

import (
	"context"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// Driver is one VMM program.
type Driver interface {
	// Name returns the name that the configuration knows the driver by.
	Name() string
	// Start runs a VMM and returns once it executes the guest. When the VMM ends
	// before that, the error holds the last lines that it said.
	Start(ctx context.Context, spec Spec) (*Process, error)
}

// Spec is what a VMM is started with.
type Spec struct {
	Name      model.Name
	CPUs      int
	MemoryMiB int
	Kernel    string // path
	Initrd    string // path; empty: none
	Rootfs    string // path of a raw disk image; empty: none. The guest's writes go with the VMM.
	Args      string // kernel command line
	TAP       string
	GuestMAC  ipam.MAC
	MTU       int    // bytes, told to the guest's network driver; 0: the guest takes its own default
	Dir       string // the VM's own folder, made if need be: console log, VMM's messages, control socket
	UID       uint32 // the VM's own uid and gid, which its VMM runs as
}

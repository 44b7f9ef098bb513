package wire

import "time"

// VM is a microVM or an attachment.
type VM struct {
	Name       string    `json:"name" doc:"DNS label, unique on the host" example:"web-0"`
	App        string    `json:"app" example:"web"`
	State      string    `json:"state" enum:"pending,starting,running,stopping,failed"`
	Slot       uint32    `json:"slot" doc:"index of the VM's /30 in the subnet"`
	Prefix     string    `json:"prefix" example:"172.16.0.0/30"`
	Gateway    string    `json:"gateway" doc:"the host's address on the TAP" example:"172.16.0.1"`
	GuestIP    string    `json:"guest_ip" example:"172.16.0.2"`
	Netmask    string    `json:"netmask" example:"255.255.255.252"`
	TAP        string    `json:"tap" example:"zvm0"`
	MAC        string    `json:"mac" doc:"the guest's Ethernet address" example:"02:5a:ac:10:00:02"`
	KernelArgs string    `json:"kernel_args" doc:"what to append to the guest's kernel command line"`
	PID        int       `json:"pid" doc:"process of the VMM, 0 when none runs"`
	Image      string    `json:"image" doc:"empty for an attachment"`
	CreatedAt  time.Time `json:"created_at"`
	Attachment bool      `json:"attachment" doc:"somebody else runs the VMM"`
	Reason     string    `json:"reason,omitempty" doc:"why it failed"`
}

// App is a set of VMs that run one image and reach each other.
type App struct {
	Name    string `json:"name" example:"web"`
	Image   string `json:"image" doc:"empty: the app has attachments only"`
	Scale   int    `json:"scale" doc:"how many VMs are wanted"`
	Running int    `json:"running" doc:"how many VMs run, attachments included"`
	Group   string `json:"group" doc:"device group of the app's TAPs" example:"0x5a000001"`
}

// Deploy asks for an app.
type Deploy struct {
	Name      string `json:"name" doc:"DNS label" example:"web"`
	Image     string `json:"image" doc:"name of a guest image" example:"debian"`
	Scale     *int   `json:"scale,omitempty" minimum:"0" maximum:"2147483647" doc:"how many VMs; left out: as many as the app has, 1 of a new app"`
	MemoryMiB int    `json:"memory_mib,omitempty" minimum:"0" maximum:"2147483647" doc:"memory of each VM in MiB; 0: as the app has, 128 of a new app"`
	CPUs      int    `json:"cpus,omitempty" minimum:"0" maximum:"2147483647" doc:"virtual CPUs of each VM; 0: as the app has, 1 of a new app"`
}

// Scale asks for another number of VMs.
type Scale struct {
	Scale int `json:"scale" minimum:"0" maximum:"2147483647" doc:"how many VMs"`
}

// Attach asks for a network without a VMM.
type Attach struct {
	Name string `json:"name" doc:"DNS label, unique on the host"`
	App  string `json:"app" doc:"made when it is not there"`
}

// Image is a guest image.
type Image struct {
	Name      string    `json:"name"`
	Kernel    string    `json:"kernel" doc:"path on the host"`
	Initrd    string    `json:"initrd,omitempty" doc:"path on the host"`
	Rootfs    string    `json:"rootfs,omitempty" doc:"path on the host"`
	Args      string    `json:"args,omitempty" doc:"added to the kernel command line"`
	CreatedAt time.Time `json:"created_at"`
}

// AddImage asks for files of the host to be copied into an image.
type AddImage struct {
	Name   string `json:"name" doc:"DNS label"`
	Kernel string `json:"kernel" doc:"absolute path on the host"`
	Initrd string `json:"initrd,omitempty" doc:"absolute path on the host"`
	Rootfs string `json:"rootfs,omitempty" doc:"absolute path on the host, a raw disk image"`
	Args   string `json:"args,omitempty" doc:"added to the kernel command line"`
}

// NetworkStatus is the state of the host's side of the network.
type NetworkStatus struct {
	Firewall          string   `json:"firewall" enum:"iptables,nftables"`
	Dataplane         string   `json:"dataplane" doc:"what serves the rules" example:"iptables v1.8.9 (nf_tables)"`
	Losses            []string `json:"losses" nullable:"false" doc:"what this kernel cannot keep safe"`
	Subnet            string   `json:"subnet"`
	Capacity          int      `json:"capacity" doc:"VMs that the subnet holds"`
	Used              int      `json:"used" doc:"blocks that VMs have"`
	Quarantined       int      `json:"quarantined" doc:"blocks that rest before they are reused"`
	Spare             int      `json:"spare" doc:"networks that are made ahead of their VMs; see network.pool of the configuration"`
	ExternalInterface string   `json:"external_interface"`
	MTU               int      `json:"mtu" doc:"bytes"`
	Private           bool     `json:"private" doc:"VMs of one app reach each other"`
	Bridge            *Bridge  `json:"bridge" doc:"null when private networking is off"`
	Driver            string   `json:"driver" doc:"VMM and accelerator" example:"qemu (kvm)"`
	PendingLinks      int      `json:"pending_links" doc:"TAPs still to be made, mended or deleted, as after a reboot; 0: all stand"`
	Drift             int      `json:"drift" doc:"differences that were mended since zwrmd started"`
	LastRepair        *Repair  `json:"last_repair" doc:"null when nothing was mended since zwrmd started"`
	Fights            []Fight  `json:"fights" nullable:"false" doc:"what somebody changes again and again while it is mended"`
	Drops             []Drop   `json:"drops" nullable:"false" doc:"what was dropped, by reason"`
}

// Drop is what was dropped for one reason: by our rules since zwrmd made them or took
// them over, or by the kernel itself: malformed, fragments and ipv6-off of all devices
// of the host, not-taken of TAPs.
type Drop struct {
	Reason  string `json:"reason" example:"other-app"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes" doc:"0 of what the kernel dropped, which does not count them"`
}

// Bridge is the device of private networking.
type Bridge struct {
	Name    string `json:"name"`
	Address string `json:"address" example:"10.0.0.1/16"`
}

// Repair is one mending of the network.
type Repair struct {
	At          time.Time    `json:"at"`
	Differences []Difference `json:"differences" nullable:"false"`
}

// Check is a comparison of the kernel with what it should be.
type Check struct {
	InSync      bool         `json:"in_sync"`
	Differences []Difference `json:"differences" nullable:"false"`
}

// Difference is one thing that is not as it should be.
type Difference struct {
	Object string `json:"object" example:"link zvm3"`
	Wanted string `json:"wanted"`
	Found  string `json:"found"`
}

// Fight is somebody who changes again and again what is mended each time.
type Fight struct {
	Object string    `json:"object" doc:"what was mended last" example:"iptables filter FORWARD rule 1"`
	Since  time.Time `json:"since"`
	Mended int       `json:"mended" doc:"times"`
	By     []Culprit `json:"by" nullable:"false" doc:"empty: the kernel does not say"`
}

// Event is something that happened.
type Event struct {
	At      time.Time `json:"at"`
	Kind    string    `json:"kind" enum:"vm,app,repair,stray,fight,uplink" doc:"what it is about; also the name of the server-sent event"`
	Object  string    `json:"object" example:"web-0"`
	Message string    `json:"message"`
	By      []Culprit `json:"by,omitempty" doc:"of a repair and a fight: who changed it, as far as the kernel says"`
	TookMS  float64   `json:"took_ms,omitempty" doc:"of a repair: milliseconds from the notice of the change until it was mended"`
}

// Culprit is a process that changed something.
type Culprit struct {
	PID     int    `json:"pid,omitempty"`
	Program string `json:"program,omitempty" doc:"left out: it is not known"`
}

// Problem is an RFC 9457 document.
type Problem struct {
	Type   string `json:"type,omitempty"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail" doc:"what is wrong"`
	Code   string `json:"code" doc:"for scripts" enum:"invalid,not_found,conflict,exhausted,storage,failed,unauthorized,too_large,busy"`
	Hint   string `json:"hint,omitempty" doc:"what to do"`
}

package plan

import (
	"net/netip"

	"zwrm/internal/config"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// Link is the wanted state of one TAP.
type Link struct {
	Name    string
	MAC     ipam.MAC
	MTU     int          // bytes
	Address netip.Prefix // the gateway's address with the block's length
	Guest   netip.Addr   // whose connections and neighbour entry go with the link
	Group   model.Group  // GroupUnassigned: closed
	Alias   string       // SpareAlias, or none
	// Optional says that the link may be missing: its VM is on its way out, so
	// what is there must be closed and what is gone stays gone.
	Optional bool
}

// VM returns the link of one VM. The device group follows the VM's state: only a
// VM that may send and receive is in the group of its app.
func VM(network config.Network, mtu int, vm model.VM) Link {
	layout := network.Layout
	group := model.GroupUnassigned
	if vm.State.Open() {
		group = vm.App.Group()
	}
	return Link{
		Name:     vm.Slot.TAP(),
		MAC:      ipam.GatewayMAC(),
		MTU:      mtu,
		Address:  netip.PrefixFrom(layout.Gateway(vm.Slot), layout.Block(vm.Slot).Bits()),
		Guest:    layout.Guest(vm.Slot),
		Group:    group,
		Optional: vm.State == model.Stopping,
	}
}

// SpareAlias is the alias (IFLA_IFALIAS) of a TAP that is made ahead of its VM. It goes
// when a VM gets the TAP.
const SpareAlias = "zwrm spare"

// Spare returns the link of a slot that no VM has.
func Spare(network config.Network, mtu int, slot ipam.Slot) Link {
	link := VM(network, mtu, model.VM{Slot: slot})
	link.Alias = SpareAlias
	return link
}

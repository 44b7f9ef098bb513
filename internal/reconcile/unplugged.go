package reconcile

import (
	"context"
	"fmt"

	"zwrm/internal/model"
)

// Unplugged returns those of the VMs whose TAP nobody has open. A VMM of theirs that
// runs has one that was deleted: it has no network until it opens the one that there
// is now. A VM whose TAP is missing is not among them, since one is made first.
func (r *Reconciler) Unplugged(ctx context.Context, vms ...model.VM) ([]model.VM, error) {
	if len(vms) == 0 {
		return nil, nil
	}
	links, err := r.links.Links(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for VMs without network: read links: %w", err)
	}
	closed := map[string]bool{}
	for _, link := range links {
		if !link.Opened {
			closed[link.Name] = true
		}
	}
	var unplugged []model.VM
	for _, vm := range vms {
		if closed[vm.Slot.TAP()] {
			unplugged = append(unplugged, vm)
		}
	}
	return unplugged, nil
}

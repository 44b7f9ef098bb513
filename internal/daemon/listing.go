package daemon

import (
	"context"

	"zwrm/internal/fleet"
	"zwrm/internal/model"
)

// listing is the fleet for the API, whose callers may ask for thousands of VMs, all of
// them at once: those who do share the list, which so belongs to none of them.
type listing struct {
	*fleet.Fleet
	all readings[[]model.VM]
}

// VMs returns every VM, as of a moment behind the question.
func (l *listing) VMs(ctx context.Context) ([]model.VM, error) { return l.all.get(ctx, l.Fleet.VMs) }

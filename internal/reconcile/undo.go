package reconcile

import (
	"context"
	"errors"
	"slices"
	"strings"

	"zwrm/internal/host"
	"zwrm/internal/ipam"
)

// isUp reports whether a TAP of ours is up.
func isUp(links []host.Link) bool {
	return slices.ContainsFunc(links, func(link host.Link) bool {
		_, ok := ipam.ParseTAP(link.Name)
		return ok && link.Group.Ours() && link.Up
	})
}

// takeBack undoes what a start has done that then failed. Where a TAP is up nothing is
// undone: a VM may send, and nothing but rules that are there now keeps it from others.
func (r *Reconciler) takeBack(ctx context.Context, c comparison) error {
	r.applied = false
	if c.up {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	errs := []error{r.firewall.Remove(ctx)}
	for _, d := range c.base {
		if c.want.Bridge != nil && d == bridgeDifference(c.want.Bridge, nothing) {
			errs = append(errs, r.links.DeleteLinks(ctx, c.want.Bridge.Name))
		}
		if name, ok := strings.CutPrefix(d.Object, "sysctl "); ok {
			errs = append(errs, r.settings.SetSysctl(name, d.Found))
		}
	}
	return errors.Join(errs...)
}

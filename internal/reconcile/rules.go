package reconcile

import (
	"context"
	"fmt"

	"zwrm/internal/model"
)

// ruling is VMs of apps whose rules somebody wants seen to.
type ruling struct {
	ctx context.Context
	vms []model.VM
	err error
}

// join counts the VMs in and lets the VMs of their apps reach each other where
// there are two of them or more.
func (r *Reconciler) join(ctx context.Context, vms []model.VM) error {
	r.mu.Lock()
	for _, vm := range vms {
		r.roster.add(vm)
	}
	unruled := r.roster.unruled(vms)
	r.mu.Unlock()
	if !unruled {
		return nil
	}
	if err := r.rule(ctx, vms); err != nil {
		return fmt.Errorf("let VMs of app %q reach each other: %w", vms[0].AppName, err)
	}
	return nil
}

// leave counts the VMs out and removes the rules of apps with one VM or none.
func (r *Reconciler) leave(ctx context.Context, vms []model.VM) error {
	r.mu.Lock()
	for _, vm := range vms {
		r.roster.remove(vm)
	}
	_, lonely := r.roster.split(vms)
	r.mu.Unlock()
	if len(lonely) == 0 {
		return nil
	}
	if err := r.rule(ctx, vms); err != nil {
		return fmt.Errorf("remove the rule of app %q: %w", vms[0].AppName, err)
	}
	return nil
}

// rule gives the VMs' apps the rules that they need, or takes them away. Those of callers
// who wait for each other are one change: it takes about as long for many apps as for
// one.
func (r *Reconciler) rule(ctx context.Context, vms []model.VM) error {
	w := &ruling{ctx: ctx, vms: vms}
	r.rules.Do(w, nil, r.ruleAll)
	return w.err
}

// ruleAll sees to the rules of all. If that fails it is done for each by itself, so that
// each is told of its own app only.
func (r *Reconciler) ruleAll(all []*ruling) {
	if len(all) > 1 {
		var vms []model.VM
		for _, w := range all {
			vms = append(vms, w.vms...)
		}
		if r.changeRules(context.WithoutCancel(all[0].ctx), vms) == nil {
			return
		}
	}
	for _, w := range all {
		w.err = r.changeRules(w.ctx, w.vms)
	}
}

// changeRules brings the rules of the VMs' apps to what the roster says. It is called by
// who has r.rules locked.
func (r *Reconciler) changeRules(ctx context.Context, vms []model.VM) error {
	r.mu.Lock()
	social, lonely := r.roster.split(vms)
	r.roster.setRuled(false, lonely...) // or somebody counts on one that is being removed
	r.mu.Unlock()
	if len(social) > 0 {
		if err := r.firewall.AddApps(ctx, social...); err != nil {
			return err
		}
	}
	if len(lonely) > 0 {
		if err := r.firewall.RemoveApps(ctx, lonely...); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.roster.setRuled(true, social...)
	for _, app := range lonely {
		r.roster.forget(app.Group)
	}
	return nil
}

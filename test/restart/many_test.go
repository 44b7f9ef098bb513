package restart_test

import (
	"fmt"
	"testing"
	"time"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/store"
	"zwrm/test/zwrmtest"
)

const (
	// full is how many VMs the default subnet holds; a few slots stay free.
	full   = 16384
	spare  = 4
	perApp = 10
)

// fill writes the rows of as many attachments as there is room for.
func fill(t *testing.T, path string) {
	t.Helper()
	ctx := t.Context()
	rows, err := store.Open(ctx, path, nil)
	must(t, err)
	defer func() { must(t, rows.Close()) }()
	must(t, rows.SetMeta(ctx, store.Subnet, "172.16.0.0/16"))
	for first := 0; first < full-spare; first += perApp {
		var vms []model.VM
		for slot := first; slot < min(first+perApp, full-spare); slot++ {
			vms = append(vms, model.VM{Name: model.Name(fmt.Sprintf("vm-%d", slot)), Slot: ipam.Slot(slot), State: model.Running, Attachment: true, CreatedAt: time.Now()})
		}
		_, _, err := rows.Create(ctx, model.App{Name: model.Name(fmt.Sprintf("app-%d", first/perApp)), CreatedAt: time.Now()}, vms)
		must(t, err)
	}
}

func TestMany(t *testing.T) {
	h := zwrmtest.NewHost(t)
	d := h.NewDaemon(t, zwrmtest.Settings{"network.bridge.enabled": "true"})
	mark := time.Now()
	lap := func(what string) {
		t.Logf("%-40s %s", what, time.Since(mark).Round(time.Millisecond))
		mark = time.Now()
	}
	fill(t, d.Database)
	lap("fill")
	d.StartReady(t)
	lap("ready")
	t.Log(d.Pending(t))
	lap("status")
	for d.Pending(t) > 0 {
		time.Sleep(100 * time.Millisecond)
	}
	lap("links")
	d.Kill()
	d.StartReady(t)
	lap("ready again")
	t.Log(d.Pending(t))
	t.Log(d.Log())
	d.Kill()
	lap("kill")
}

package zwrmtest

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/store"
)

// Fill writes the rows of so many attachments into a database of the default subnet,
// some to an app, before a zwrmd has it.
func Fill(t testing.TB, path string, vms, perApp int) {
	t.Helper()
	ctx := t.Context()
	rows, err := store.Open(ctx, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = rows.SetMeta(ctx, store.Subnet, "172.16.0.0/16")
	for first := 0; first < vms && err == nil; first += perApp {
		var some []model.VM
		for slot := first; slot < min(first+perApp, vms); slot++ {
			name := model.Name(fmt.Sprintf("vm-%d", slot))
			some = append(some, model.VM{Name: name, Slot: ipam.Slot(slot), State: model.Running, Attachment: true, CreatedAt: time.Now()})
		}
		app := model.Name(fmt.Sprintf("app-%d", first/perApp))
		_, _, err = rows.Create(ctx, model.App{Name: app, CreatedAt: time.Now()}, some)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
}

// DeleteTAPs deletes all TAPs of ours at once: with their namespace each would take
// 20 ms. It may be called when the test is over.
func (h *Host) DeleteTAPs(t testing.TB) {
	t.Helper()
	h.Do(t, func() {
		kernel, err := host.Open(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer kernel.Close()
		ctx := context.WithoutCancel(t.Context())
		links, err := kernel.Devices(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, link := range links {
			if link.Group.Ours() {
				names = append(names, link.Name)
			}
		}
		if err := kernel.SetGroup(ctx, model.GroupUnassigned, names...); err != nil {
			t.Fatal(err)
		}
		group := strconv.FormatUint(uint64(model.GroupUnassigned), 10)
		if err := exec.CommandContext(ctx, "ip", "link", "delete", "group", group).Run(); err != nil {
			t.Fatal(err)
		}
	})
}

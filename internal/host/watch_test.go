package host_test

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// TestWatch: what somebody changes is told, with the link it is about, and who did it
// where the kernel says so.
func TestWatch(t *testing.T) {
	kernel, others := open(t)
	tap := host.TAP{Name: "zvm3", MAC: ipam.GatewayMAC(), MTU: 1500, Address: netip.MustParsePrefix("172.16.0.13/30")}
	must(t, kernel.CreateTAP(t.Context(), tap))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told, err := kernel.Watch(ctx)
	must(t, err)
	tests := []struct {
		name   string
		change func() error
		want   func(n host.Notice) bool
	}{
		{"group", func() error { return kernel.SetGroup(ctx, model.AppID(7).Group(), "zvm3") }, func(n host.Notice) bool {
			return n.About == host.AboutLink && n.Name == "zvm3" && n.Link.Group == model.AppID(7).Group() && n.Link.Up
		}},
		{"address", func() error {
			return exec.CommandContext(ctx, "ip", "address", "add", "192.0.2.9/32", "dev", "zvm3").Run()
		}, func(n host.Notice) bool {
			return n.About == host.AboutAddress && n.Name == "zvm3" && n.Address == netip.MustParsePrefix("192.0.2.9/32") && !n.Gone && n.PID > os.Getpid()
		}},
		{"route", func() error { return others.RemoveRoute("zvm3", tap.Address.Masked()) }, func(n host.Notice) bool {
			return n.About == host.AboutRoute && n.Name == "zvm3" && n.Address == tap.Address.Masked()
		}},
		{"route replaced", func() error {
			must(t, kernel.EnsureBridge(ctx, "zwrmd0", netip.MustParsePrefix("10.0.0.1/16"), "zwrm"))
			return exec.CommandContext(ctx, "ip", "route", "replace", "10.0.0.0/16", "dev", "zvm3").Run()
		}, func(n host.Notice) bool {
			return n.About == host.AboutRoute && n.Name == "zvm3" && n.Address == netip.MustParsePrefix("10.0.0.0/16")
		}},
		{"rp_filter", func() error { return kernel.SetSysctl("net/ipv4/conf/zvm3/rp_filter", "0") }, func(n host.Notice) bool {
			return n.About == host.AboutSetting && n.Name == "zvm3" && n.Off
		}},
		{"forwarding", func() error { return kernel.SetSysctl("net/ipv4/ip_forward", "1") }, func(n host.Notice) bool {
			return n.About == host.AboutSetting && n.Name == "" && !n.Off
		}},
		{"renamed", func() error { return kernel.Rename(ctx, "zvm3", "away") }, func(n host.Notice) bool {
			return n.About == host.AboutNoLink && n.Name == "zvm3"
		}},
		{"new name", func() error { return kernel.SetUp(ctx, false, "away") }, func(n host.Notice) bool {
			return n.About == host.AboutLink && n.Name == "away" && !n.Link.Up
		}},
		{"deleted", func() error { return kernel.DeleteLinks(ctx, "away") }, func(n host.Notice) bool {
			return n.About == host.AboutNoLink && n.Name == "away"
		}},
	}
	for _, test := range tests {
		must(t, test.change())
		await(t, test.name, told, test.want)
	}
	cancel()
	for range told { // it ends
	}
}

// await reads notices until one is as wanted.
func await(t *testing.T, what string, told <-chan []host.Notice, wanted func(host.Notice) bool) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	var seen []host.Notice
	for {
		select {
		case batch, ok := <-told:
			if !ok {
				t.Fatalf("%s: the watch ended", what)
			}
			for _, n := range batch {
				if wanted(n) {
					return
				}
			}
			seen = append(seen, batch...)
		case <-timeout:
			t.Fatalf("%s is not told; there is %+v", what, seen)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

package plan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"zwrm/internal/config"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
)

func vm(app model.AppID, name string, slot ipam.Slot, state model.State) model.VM {
	return model.VM{App: app, AppName: model.Name(strings.Split(name, "-")[0]), Name: model.Name(name), Slot: slot, State: state}
}

func text(h plan.Host) string {
	var b strings.Builder
	for _, s := range h.Sysctls {
		fmt.Fprintf(&b, "sysctl %s = %s\n", s.Name, s.Value)
	}
	if h.Bridge != nil {
		fmt.Fprintf(&b, "bridge %s %s\n", h.Bridge.Name, h.Bridge.Address)
	}
	for _, l := range h.Links {
		fmt.Fprintf(&b, "link %s group %s mac %s mtu %d inet %s guest %s", l.Name, l.Group, l.MAC, l.MTU, l.Address, l.Guest)
		if l.Optional {
			b.WriteString(" optional")
		}
		b.WriteByte('\n')
	}
	for _, app := range h.Policy.Apps {
		fmt.Fprintf(&b, "app %s group %s\n", app.Name, app.Group)
	}
	return b.String()
}

func TestForVMs(t *testing.T) {
	cfg, err := config.Parse("[network.bridge]\nenabled = true\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	host := plan.ForVMs(cfg.Network, plan.Uplink{Name: "eth0", MTU: 1450}, []model.VM{
		vm(2, "blog-0", 3, model.Running),
		vm(1, "shop-0", 0, model.Running),
		vm(1, "shop-1", 1, model.Pending),
		vm(1, "shop-2", 2, model.Stopping),
		vm(2, "blog-1", 4, model.Failed),
	})
	const want = `sysctl net/ipv4/ip_forward = 1
sysctl net/ipv4/conf/eth0/forwarding = 1
bridge zwrmd0 10.0.0.1/16
link zvm0 group 0x5a000001 mac 02:5a:ff:ff:ff:fe mtu 1450 inet 172.16.0.1/30 guest 172.16.0.2
link zvm1 group 0x5a000001 mac 02:5a:ff:ff:ff:fe mtu 1450 inet 172.16.0.5/30 guest 172.16.0.6
link zvm2 group 0x5a000000 mac 02:5a:ff:ff:ff:fe mtu 1450 inet 172.16.0.9/30 guest 172.16.0.10 optional
link zvm3 group 0x5a000002 mac 02:5a:ff:ff:ff:fe mtu 1450 inet 172.16.0.13/30 guest 172.16.0.14
link zvm4 group 0x5a000000 mac 02:5a:ff:ff:ff:fe mtu 1450 inet 172.16.0.17/30 guest 172.16.0.18
app shop group 0x5a000001
`
	if got := text(host); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestOneVMIsPartOfAll proves that the plan of one VM and the plan of the host
// cannot disagree.
func TestOneVMIsPartOfAll(t *testing.T) {
	cfg, err := config.Parse("[network]\nmtu = 1400\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	uplink := plan.Uplink{Name: "eth0", MTU: 1500}
	var vms []model.VM
	for i, state := range []model.State{model.Pending, model.Starting, model.Running, model.Stopping, model.Failed} {
		vms = append(vms, vm(1, "web-"+fmt.Sprint(i), ipam.Slot(i), state))
	}
	host := plan.ForVMs(cfg.Network, uplink, vms)
	for _, v := range vms {
		if one := plan.VM(cfg.Network, plan.MTU(cfg.Network, uplink), v); !slices.Contains(host.Links, one) {
			t.Errorf("VM %q: %+v is not in the plan of the host", v.Name, one)
		}
	}
}

func TestAppsWithOneVMNeedNoRule(t *testing.T) {
	vms := []model.VM{vm(7, "a-0", 0, model.Running), vm(8, "b-0", 1, model.Running), vm(8, "b-1", 2, model.Failed)}
	if apps := plan.Apps(vms); len(apps) != 0 {
		t.Errorf("apps with a rule: %v", apps)
	}
}

package daemon_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/test/zwrmtest"
)

// TestPrivateChain follows the dedicated chain through the life of two apps: a final
// DROP from the start, an ACCEPT for an app before it from its second VM on, and none
// any more when it has one VM left.
func TestPrivateChain(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, private())
	const (
		web  = `-A ZWRM-PRIVATE -m devgroup --src-group 0x5a000001 --dst-group 0x5a000001 -m comment --comment "zwrm: app web" -j ACCEPT`
		db   = `-A ZWRM-PRIVATE -m devgroup --src-group 0x5a000002 --dst-group 0x5a000002 -m comment --comment "zwrm: app db" -j ACCEPT`
		drop = `-A ZWRM-PRIVATE -m comment --comment "zwrm: other-app" -j DROP`
	)
	steps := []struct {
		command string // of zwrm; empty: as it is
		chain   []string
	}{
		{"", []string{drop}},
		{"attach web-a --app web", []string{drop}},
		{"attach web-b --app web", []string{web, drop}},
		{"attach web-c --app web", []string{web, drop}},
		{"attach db-a --app db", []string{web, drop}},
		{"attach db-b --app db", []string{db, web, drop}},
		{"detach web-c", []string{db, web, drop}},
		{"detach web-b", []string{db, drop}},
		{"destroy db", []string{drop}},
		{"detach web-a", []string{drop}},
	}
	for _, step := range steps {
		if step.command != "" {
			d.Must(t, strings.Fields(step.command)...)
		}
		want := strings.Join(append([]string{"-N ZWRM-PRIVATE"}, step.chain...), "\n") + "\n"
		if got := h.Run(t, "iptables", "-S", "ZWRM-PRIVATE"); got != want {
			t.Fatalf("after %q the chain is\n%swant\n%s", step.command, got, want)
		}
	}
	d.Stop(t)
	if rules := h.Rules(t); strings.Contains(rules, "ZWRM") {
		t.Errorf("after the stop there is\n%s", rules)
	}
}

// TestPrivateOff: without private networking there is no such chain and no such
// bridge, and switching it off takes both away, even if zwrmd was killed before.
func TestPrivateOff(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, private())
	d.Attach(t, "web-a", "web")
	d.Attach(t, "web-b", "web")
	d.Kill()
	d.Configure(t, nil)
	d.Start(t)
	if rules := h.Rules(t); strings.Contains(rules, "ZWRM-PRIVATE") {
		t.Errorf("the chain is there:\n%s", rules)
	}
	if links := h.Run(t, "ip", "link"); strings.Contains(links, "zwrmd0") {
		t.Errorf("the bridge is there:\n%s", links)
	}
	contains(t, "status", d.Must(t, "network", "status"), "private networking:  off")
}

// TestBridgeCarriesNothing: zwrmd0 has the first address of its subnet and no port.
// Every TAP has a route of its own, by which the host reaches the guest.
func TestBridgeCarriesNothing(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, private())
	guest := d.Guest(t, "web-a", "web")
	d.Attach(t, "web-b", "web")
	contains(t, "zwrmd0", h.Run(t, "ip", "-4", "-o", "address", "show", "zwrmd0"), "inet 10.0.0.1/16 ")
	if ports := h.Run(t, "ip", "-o", "link", "show", "master", "zwrmd0"); ports != "" {
		t.Errorf("zwrmd0 has ports:\n%s", ports)
	}
	contains(t, "route to the guest", h.Run(t, "ip", "route", "get", guest.VM.GuestIP), "dev zvm0 ", "src "+guest.VM.Gateway)
	if err := zwrmtest.Ping(t, h.Namespace, guest.Address(), 10*time.Second); err != nil {
		t.Errorf("the host does not reach the guest: %v", err)
	}
}

// TestBlocks: each VM gets a /30 of the configured range and a TAP, with .1 for the
// host's side and .2 for the guest, which answers there, and kernel arguments that
// say so.
func TestBlocks(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, zwrmtest.Settings{"network.subnet": `"172.16.0.0/20"`})
	layout, err := ipam.NewLayout(netip.MustParsePrefix("172.16.0.0/20"))
	must(t, err)
	for i, name := range []model.Name{"web-a", "web-b", "web-c"} {
		guest := d.Guest(t, string(name), "web")
		vm, slot := guest.VM, ipam.Slot(i)
		base := layout.Subnet().Addr().As4()
		base[3] = byte(4 * i)
		block := netip.PrefixFrom(netip.AddrFrom4(base), 30)
		gateway := block.Addr().Next()
		if vm.Prefix != block.String() || vm.Gateway != gateway.String() || vm.GuestIP != gateway.Next().String() || vm.TAP != slot.TAP() {
			t.Errorf("%s has %s, %s, %s, %s", name, vm.Prefix, vm.Gateway, vm.GuestIP, vm.TAP)
		}
		if want := "ip=" + vm.GuestIP + "::" + vm.Gateway + ":255.255.255.252:" + string(name) + ":eth0:off"; vm.KernelArgs != want {
			t.Errorf("kernel arguments are %q, want %q", vm.KernelArgs, want)
		}
		contains(t, "address of the TAP", h.Run(t, "ip", "-4", "-o", "address", "show", vm.TAP), "inet "+vm.Gateway+"/30 ")
		if err := zwrmtest.Ping(t, h.Namespace, guest.Address(), 10*time.Second); err != nil {
			t.Errorf("the guest does not answer on its address: %v", err)
		}
	}
}

// TestDefaultSubnet: without a subnet in the configuration it is 172.16.0.0/16, which
// holds 16,384 VMs.
func TestDefaultSubnet(t *testing.T) {
	t.Parallel()
	d := zwrmtest.NewHost(t).Start(t, nil)
	contains(t, "status", d.Must(t, "network", "status"), "subnet:              172.16.0.0/16\n", "capacity:            16384 VMs\n")
}

// TestForwardingOff: without forwarding a VM does not reach the internet. zwrmd has
// switched it on, and keeps it so.
func TestForwardingOff(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	zwrmtest.Serve(t, h.Outside, "tcp/80")
	d := h.Start(t, nil)
	guest := d.Guest(t, "one", "web")
	reaches(t, "as zwrmd made it", guest.Namespace, true)
	d.Kill()
	h.Set(t, "net/ipv4/ip_forward", "0")
	reaches(t, "without forwarding", guest.Namespace, false)
}

// TestPersistedRules: what iptables-persistent saves and puts back at boot is no harm.
// Before zwrmd starts, the saved rules let nothing pass that they should not; zwrmd
// takes them over.
func TestPersistedRules(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	h.Foreign(t)
	zwrmtest.Serve(t, h.Outside, "tcp/80")
	d := h.Start(t, private())
	vm := d.Attach(t, "one", "web")
	d.Attach(t, "two", "web")
	before := h.Dump(t)
	saved := map[string]string{}
	for _, tool := range []string{"iptables", "ip6tables"} {
		saved[tool] = filepath.Join(h.Dir, tool)
		must(t, os.WriteFile(saved[tool], []byte(h.Run(t, tool+"-save")), 0o600))
	}
	d.Kill()
	h.Reboot(t)
	for tool, file := range saved {
		h.Run(t, tool+"-restore", file)
	}
	h.Set(t, "net/ipv4/ip_forward", "1") // the sysctl file does

	// A machine that somebody starts too early, on a TAP of the name that it had.
	shell(t, h, "ip tuntap add zvm0 mode tap vnet_hdr\nip address add 172.16.0.1/30 dev zvm0\nip link set zvm0 up")
	t.Run("before zwrmd starts", func(t *testing.T) {
		early := h.Guest(t, vm)
		reaches(t, "before zwrmd starts", early.Namespace, false)
		h.Run(t, "ip", "link", "set", "zvm0", "group", "0x5a000001")
		reaches(t, "with the group that only zwrmd sets", early.Namespace, true)
	})
	shell(t, h, "ip link del zvm0")
	d.Start(t)
	h.Same(t, before)
	reaches(t, "after zwrmd started", h.Guest(t, vm).Namespace, true)
}

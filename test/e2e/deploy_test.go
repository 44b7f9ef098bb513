package e2e_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// TestDeployReachesInternet: a VM that was deployed reaches other networks, which see
// the host's address and never the guest's. Its image cannot be removed meanwhile.
func TestDeployReachesInternet(t *testing.T) {
	w := newWorld(t, nil, nil)
	defer w.end(t)
	outside, host := zwrmtest.NewCapture(t, w.Outside), zwrmtest.NewCapture(t, w.Namespace)
	web := w.deploy(t, "web", 1)[0]
	if web.State != "running" || web.PID == 0 {
		t.Errorf("the VM is %s with process %d", web.State, web.PID)
	}
	guest := netip.MustParseAddr(web.GuestIP)
	// Nobody but deploy --wait has pinged it yet.
	host.Await(t, "the guest's answer to deploy --wait", func(p zwrmtest.Packet) bool {
		const echoReply = 0
		return p.Src == guest && p.Protocol == zwrmtest.ICMP && p.DstPort == echoReply
	})
	w.online(t, web)
	w.reaches(t, web, "ping?"+zwrmtest.OutsideAddress)
	for _, p := range outside.Find(func(p zwrmtest.Packet) bool { return p.Src == guest }) {
		t.Errorf("a packet went out with the guest's own address: %s", p)
	}
	outside.Await(t, "a ping with the host's address", func(p zwrmtest.Packet) bool {
		return p.Protocol == zwrmtest.ICMP && p.Src.String() == zwrmtest.HostAddress
	})

	before := w.zwrm(t, "image", "ls")
	r := w.daemon.Zwrm(t, "image", "rm", "small")
	if r.Status != 1 {
		t.Errorf("image rm of an image in use: exit status %d", r.Status)
	}
	contains(t, "the refusal", r.Stderr, `image "small" is in use by app "web"`)
	if after := w.zwrm(t, "image", "ls"); after != before {
		t.Errorf("the images are\n%sand were\n%s", after, before)
	}
}

// TestStaticAddressFromKernelArguments: guests have their addresses, their route and
// their host name from the kernel arguments. None asks for them by DHCP.
func TestStaticAddressFromKernelArguments(t *testing.T) {
	w := newWorld(t, zwrmtest.Settings{"network.dns": `["192.0.2.53"]`}, nil)
	defer w.end(t)
	host := zwrmtest.NewCapture(t, w.Namespace) // sees what comes in on every TAP
	for i, vm := range w.deploy(t, "web", 2) {
		if want := fmt.Sprintf("172.16.0.%d", 4*i+2); vm.GuestIP != want || vm.Netmask != "255.255.255.252" {
			t.Errorf("%s has address %s and mask %s, want %s of a /30", vm.Name, vm.GuestIP, vm.Netmask, want)
		}
		want := fmt.Sprintf("ip=%s::%s:255.255.255.252:%s:eth0:off:192.0.2.53", vm.GuestIP, vm.Gateway, vm.Name)
		if vm.KernelArgs != want {
			t.Errorf("kernel arguments of %s are %q, want %q", vm.Name, vm.KernelArgs, want)
		}
		command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", vm.PID))
		must(t, err)
		contains(t, "the VMM's command line", string(command), want)
		contains(t, "what the guest says of itself", w.answer(t, vm, "info")+"\n",
			"hostname "+vm.Name+"\n",
			"mac "+vm.MAC+"\n",
			"address "+vm.GuestIP+"/30\n",
			"route default via "+vm.Gateway+" dev eth0\n",
			"nameserver 192.0.2.53\n")
		guest := netip.MustParseAddr(vm.GuestIP)
		host.Await(t, "a packet of "+vm.Name, func(p zwrmtest.Packet) bool { return p.Src == guest })
	}
	const server, client = 67, 68 // RFC 2131 section 4.1
	for _, p := range host.Find(func(p zwrmtest.Packet) bool {
		return p.Protocol == zwrmtest.UDP && (p.DstPort == server || p.DstPort == client)
	}) {
		t.Errorf("a packet of DHCP: %s", p)
	}
}

// TestScaleUpAndDown: new VMs reach those of their app and the other way round; of
// removed ones nothing is left, and of the app's rule neither when one VM is.
func TestScaleUpAndDown(t *testing.T) {
	w := newWorld(t, private(), nil)
	defer w.end(t)
	const rule = `--comment "zwrm: app web"`
	before := w.deploy(t, "web", 1)
	alone := w.snapshot(t)
	if strings.Contains(alone.network, rule) {
		t.Errorf("an app of one VM has a rule:\n%s", w.Rules(t))
	}

	w.zwrm(t, "scale", "web", "3", "--wait", "--timeout", within.String())
	three := w.vms(t, "web")
	if len(three) != 3 || three[0] != before[0] {
		t.Fatalf("after scale 3 the VMs are %v; there was %v", three, before)
	}
	w.matrix(t, three, func(_, _ wire.VM) bool { return true })
	contains(t, "rules", w.Rules(t), rule)
	if n := strings.Count(w.Rules(t), rule); n != 1 {
		t.Errorf("3 VMs have %d rules, want 1 of the app", n)
	}
	w.online(t, three[2])

	w.zwrm(t, "scale", "web", "1")
	for _, vm := range three[1:] {
		if runs(vm.PID) {
			t.Errorf("process %d of %s is left", vm.PID, vm.Name)
		}
	}
	w.same(t, alone) // rules, rows, TAPs, processes and folders
	w.online(t, three[0])
	w.zwrm(t, "network", "check") // exit status 4 if it differs
}

// TestDestroyReleases: destroy gives back slots, rows, TAPs and processes, and the
// rule of the app. What was given back is not given out again at once.
func TestDestroyReleases(t *testing.T) {
	w := newWorld(t, private(), nil)
	defer w.end(t)
	empty := w.snapshot(t)
	vms := w.deploy(t, "web", 2)
	contains(t, "rules", w.Rules(t), `--comment "zwrm: app web"`)
	contains(t, "status", w.zwrm(t, "network", "status", "-o", "json"), `"used": 2`)
	used := map[uint32]bool{}
	for _, vm := range vms {
		used[vm.Slot] = true
		_, err := os.Stat(fmt.Sprintf("/proc/%d/cwd/console.log", vm.PID))
		must(t, err)
	}

	w.zwrm(t, "destroy", "web")
	w.same(t, empty)
	for _, vm := range vms {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", vm.PID)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("process %d of %s is there, or nobody has waited for its end: %v", vm.PID, vm.Name, err)
		}
	}
	contains(t, "status", w.zwrm(t, "network", "status", "-o", "json"), `"used": 0`, `"quarantined": 2`)
	if next := w.daemon.Attach(t, "next", "blog"); used[next.Slot] {
		t.Errorf("slot %d went from one app to the next without a rest", next.Slot)
	}
	r := w.daemon.Zwrm(t, "destroy", "web")
	if r.Status != 1 {
		t.Errorf("second destroy: exit status %d", r.Status)
	}
	contains(t, "the second destroy", r.Stderr, `no app named "web"`)
	w.zwrm(t, "image", "rm", "small") // nothing uses it any more
}

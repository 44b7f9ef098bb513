package qemu

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"zwrm/internal/host/icmp"
	"zwrm/internal/host/nstest"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/vmm"
)

func slotOf(n int) ipam.Slot { return ipam.Slot(n) }

// guestSpec is a VM with a real kernel, behind a TAP with the host's address.
func guestSpec(t *testing.T, slot ipam.Slot) vmm.Spec {
	t.Helper()
	image := os.Getenv("ZWRM_TEST_IMAGE")
	if image == "" {
		t.Fatal("ZWRM_TEST_IMAGE is not set: it names a folder with the kernel and initrd that scripts/guest-image.sh makes; \"make test\" sets it")
	}
	layout, err := ipam.NewLayout(netip.MustParsePrefix("172.16.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	name := model.Name("web").VMName(int(slot))
	guest, gateway := layout.Guest(slot), layout.Gateway(slot)
	makeTAP(t, slot.TAP())
	var here *nstest.Namespace
	here.Address(t, slot.TAP(), netip.PrefixFrom(gateway, 30))
	here.Up(t, slot.TAP())
	return vmm.Spec{
		Name:      name,
		CPUs:      1,
		MemoryMiB: 128,
		Kernel:    filepath.Join(image, "kernel"),
		Initrd:    filepath.Join(image, "initrd"),
		Args:      fmt.Sprintf("ip=%s::%s:255.255.255.252:%s:eth0:off", guest, gateway, name),
		TAP:       slot.TAP(),
		GuestMAC:  layout.GuestMAC(slot),
		MTU:       1400,
		Dir:       filepath.Join(t.TempDir(), string(name)),
		UID:       testUID + uint32(slot),
	}
}

// TestBoot boots several real guests at once, with more virtual CPUs than there
// are real ones here: a guest whose clock depends on being undisturbed hangs.
func TestBoot(t *testing.T) {
	d := openDriver(t)
	const guests = 4
	var specs []vmm.Spec
	begin := time.Now()
	for n := range guests {
		spec := guestSpec(t, slotOf(n))
		spec.CPUs = 1 + n%2
		start(t, d, spec)
		specs = append(specs, spec)
	}
	layout, err := ipam.NewLayout(netip.MustParsePrefix("172.16.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	for n, spec := range specs {
		address := layout.Guest(slotOf(n))
		awaitEcho(t, spec, address)
		if got, want := hostName(t, address), string(spec.Name); got != want {
			t.Errorf("guest %s calls itself %q, want %q", address, got, want)
		}
	}
	t.Logf("%d guests with %s serve after %s", guests, d.Accel(), time.Since(begin).Round(time.Millisecond))
	arp, err := os.ReadFile("/proc/net/arp")
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range specs {
		if !strings.Contains(string(arp), spec.GuestMAC.String()) {
			t.Errorf("no neighbour has %q's address %s:\n%s", spec.Name, spec.GuestMAC, arp)
		}
	}
}

func awaitEcho(t *testing.T, spec vmm.Spec, address netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	for {
		once, stop := context.WithTimeout(ctx, time.Second)
		err := icmp.Echo(once, address)
		stop()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			said, _ := vmm.NewConsole(spec.Dir).Tail(20)
			t.Fatalf("%s does not answer: %v; its console:\n%s", spec.Name, err, said)
		}
	}
}

// hostName asks the workload of the guest image, which says it on port 80.
func hostName(t *testing.T, address netip.Addr) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address.String()+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := http.DefaultClient.Do(request); err == nil {
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(string(body))
		}
		if ctx.Err() != nil {
			t.Fatalf("guest %s does not serve: %v", address, ctx.Err())
		}
	}
}

// TestGuestThatPanicsEndsQEMU gives the kernel no init.
func TestGuestThatPanicsEndsQEMU(t *testing.T) {
	d, spec := openDriver(t), guestSpec(t, 0)
	spec.Initrd = ""
	p := start(t, d, spec)
	awaitDone(t, p)
	if got, want := p.Exit(), "exit status 0"; got != want {
		t.Errorf("exit is %q, want %q", got, want)
	}
	said, err := vmm.NewConsole(spec.Dir).Tail(100)
	if err != nil || !strings.Contains(said, "Kernel panic") {
		t.Errorf("console has no panic: %v\n%s", err, said)
	}
}

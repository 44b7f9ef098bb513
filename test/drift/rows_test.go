package drift_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"zwrm/test/zwrmtest"
)

// TestLostRows: with another database a VM that runs is cut off and left alone. Nobody
// gets its slot. With its own database back it goes on as before.
func TestLostRows(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	zwrmtest.Serve(t, h.Outside, "tcp/80")
	settings := settings("iptables")
	settings["network.on_shutdown"] = `"keep"`
	d := h.Start(t, settings)
	guest := d.Guest(t, "one", "web")
	d.Attach(t, "two", "web") // nobody has it open
	reach := func(within time.Duration) error {
		_, err := zwrmtest.Ask(t, guest.Namespace, "tcp", netip.MustParseAddrPort(zwrmtest.OutsideAddress+":80"), within)
		return err
	}
	must(t, reach(5*time.Second))
	before := h.Dump(t)
	d.Stop(t)
	state := filepath.Dir(d.Database)
	must(t, os.Rename(state, state+".lost"))
	d.Start(t)
	if links := h.Run(t, "ip", "-o", "link"); !strings.Contains(links, "zvm0:") || strings.Contains(links, "zvm1:") {
		t.Errorf("there are the links\n%s", links)
	}
	if err := reach(300 * time.Millisecond); err == nil {
		t.Error("a guest of no VM reaches the internet")
	}
	awaitEvent(t, d, 0, "stray", "link zvm0", "a process has it open")
	if r := d.Zwrm(t, "network", "check"); r.Status != 4 || !strings.Contains(r.Stdout, "link zvm0") {
		t.Errorf("check: exit status %d, %s", r.Status, r.Stdout)
	}
	if got := d.Must(t, "network", "repair"); got != "nothing to mend\n" {
		t.Errorf("repair: %s", got)
	}
	for _, name := range []string{"new-0", "new-1"} {
		if vm := d.Attach(t, name, "new"); vm.TAP == "zvm0" {
			t.Errorf("%s has the slot of a VM that runs", name)
		}
	}
	d.Must(t, "detach", "new-0")
	d.Must(t, "detach", "new-1")
	d.Stop(t)
	must(t, os.RemoveAll(state))
	must(t, os.Rename(state+".lost", state))
	d.Start(t)
	await(t, "everything as before", func() bool { return h.Dump(t) == before })
	must(t, reach(5*time.Second))
}

// TestUplink: while the external interface is gone nothing breaks, and when it is back
// VMs reach the internet again, whatever its address is then.
func TestUplink(t *testing.T) {
	t.Parallel()
	for _, dataplane := range dataplanes() {
		t.Run(dataplane, func(t *testing.T) {
			t.Parallel()
			h := zwrmtest.NewHost(t)
			zwrmtest.Serve(t, h.Outside, "tcp/80")
			d := h.Start(t, settings(dataplane))
			guest := d.Guest(t, "one", "web")
			shell(t, h, "ip link set eth0 down\nip link set eth0 name away")
			awaitEvent(t, d, 0, "uplink", "eth0: gone")
			if check := d.Zwrm(t, "network", "check"); check.Stdout != "in sync\n" {
				t.Errorf("without it: %s%s", check.Stdout, check.Stderr)
			}
			shell(t, h, "ip link set away name eth0\nip address flush dev eth0\nip address add 192.0.2.77/24 dev eth0\nip link set eth0 up\nip route add default via 192.0.2.2")
			awaitEvent(t, d, 0, "uplink", "eth0: up")
			_, err := zwrmtest.Ask(t, guest.Namespace, "tcp", netip.MustParseAddrPort(zwrmtest.OutsideAddress+":80"), 5*time.Second)
			must(t, err)
			if check := d.Zwrm(t, "network", "check"); check.Stdout != "in sync\n" {
				t.Errorf("with it: %s%s", check.Stdout, check.Stderr)
			}
		})
	}
}

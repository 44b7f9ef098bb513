package host_test

import (
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"zwrm/internal/host"
	"zwrm/internal/host/netlink"
)

// A route may say that there is no way. Such a route has no device.
func TestRouteThatRefuses(t *testing.T) {
	kernel, others := open(t)
	if err := kernel.SetSysctl("net/ipv4/ip_forward", "1"); err != nil {
		t.Fatal(err)
	}
	if err := kernel.CreateTAP(t.Context(), tap(1)); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		dest netip.Addr
		kind byte
		want host.RouteType
	}{
		{netip.MustParseAddr("198.51.100.1"), unix.RTN_UNREACHABLE, host.RouteUnreachable},
		{netip.MustParseAddr("198.51.100.2"), unix.RTN_PROHIBIT, host.RouteProhibited},
		{netip.MustParseAddr("198.51.100.3"), unix.RTN_BLACKHOLE, host.RouteRefused},
		{netip.MustParseAddr("198.51.100.4"), unix.RTN_THROW, host.RouteUnreachable},
	}
	for _, test := range tests {
		fixed := [unix.SizeofRtMsg]byte{unix.AF_INET, 32, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, 0, test.kind}
		request := netlink.NewRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, fixed[:])
		request.Bytes(unix.RTA_DST, test.dest.AsSlice())
		if err := others.route.Do(request); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // it goes with no link
			remove := netlink.NewRequest(unix.RTM_DELROUTE, 0, fixed[:])
			remove.Bytes(unix.RTA_DST, test.dest.AsSlice())
			if err := others.route.Do(remove); err != nil {
				t.Error(err)
			}
		})
		for _, q := range []host.RouteQuery{{Dest: test.dest}, {Dest: test.dest, Source: tap(1).Address.Addr().Next(), In: "zvm1"}} {
			if hop, err := kernel.Route(t.Context(), q); err != nil || hop != (host.Hop{Type: test.want}) {
				t.Errorf("route of type %d, asked for %+v: got %+v, %v; want %s", test.kind, q, hop, err, test.want)
			}
		}
	}
}

// The bounds are those that ip shows. Entries are of the whole machine, so that of
// them only a bound is known: those made here are among them.
func TestNeighbours(t *testing.T) {
	kernel, others := open(t)
	if err := kernel.CreateTAP(t.Context(), tap(1)); err != nil {
		t.Fatal(err)
	}
	const made = 2
	for _, address := range []string{"172.16.0.6", "172.16.0.7"} {
		if err := others.AddNeighbour("zvm1", netip.MustParseAddr(address)); err != nil {
			t.Fatal(err)
		}
	}
	have, err := kernel.Neighbours(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shown, err := exec.CommandContext(t.Context(), "ip", "ntable", "show", "name", "arp_cache").Output()
	if err != nil {
		t.Fatal(err)
	}
	bound := regexp.MustCompile(`thresh3 (\d+)`).FindSubmatch(shown)
	if bound == nil || string(bound[1]) != strconv.Itoa(have.Max) || have.Entries < made {
		t.Errorf("the table has %+v, and ip shows\n%s", have, shown)
	}
}

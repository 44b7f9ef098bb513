package hosttest_test

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"slices"
	"testing"
	"testing/synctest"

	"zwrm/internal/host"
	"zwrm/internal/host/hosttest"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

var update = flag.Bool("update", false, "write the golden files")

func TestFake(t *testing.T) {
	hosttest.Suite(t, func(*testing.T) (hosttest.Host, hosttest.Others) {
		fake := hosttest.NewFake()
		return fake, fake
	})
}

func tap(slot ipam.Slot) host.TAP {
	layout, err := ipam.NewLayout(netip.MustParsePrefix("172.16.0.0/16"))
	if err != nil {
		panic(err)
	}
	return host.TAP{Name: slot.TAP(), MAC: ipam.GatewayMAC(), MTU: 1500, Address: netip.PrefixFrom(layout.Gateway(slot), 30)}
}

// busy returns a Fake that a bit of everything was done to.
func busy(t *testing.T) *hosttest.Fake {
	t.Helper()
	ctx, fake := t.Context(), hosttest.NewFake()
	uplink := host.Link{Name: "eth0", Up: true, MAC: ipam.MAC{2, 0, 0, 0, 0, 1}, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}}
	guest, internet := netip.MustParseAddr("172.16.0.42"), netip.MustParseAddr("192.0.2.1")
	for _, err := range []error{
		fake.AddLink(uplink),
		fake.AddRoute(host.Route{Dest: netip.MustParsePrefix("0.0.0.0/0"), Device: "eth0", Metric: 100}),
		fake.SetSysctl("net/ipv4/ip_forward", "1"),
		fake.CreateTAP(ctx, tap(10)),
		fake.CreateTAP(ctx, tap(2)),
		fake.CreateTAP(ctx, tap(2)),
		fake.EnsureBridge(ctx, "zwrmd0", netip.MustParsePrefix("10.0.0.1/16"), "zwrm"),
		fake.SetGroup(ctx, model.AppID(1).Group(), "zvm2", "zvm10"),
		fake.SetSysctl("net/ipv4/conf/zvm10/rp_filter", "2"),
		fake.SetUp(ctx, false, "zvm10"),
		fake.AddNeighbour("zvm10", guest),
		fake.AddFlow(hosttest.Flow{Src: guest, Dst: internet, ReplySrc: internet, ReplyDst: uplink.Addresses[0].Addr()}),
		fake.CreateTAP(ctx, tap(3)),
		fake.DeleteLinks(ctx, "zvm3", "zvm4"),
		fake.Inject(ctx, "zvm2", make([]byte, 60)),
		fake.Send(ctx, []byte{0: 0x45, 16: 172, 17: 16, 18: 0, 19: 10}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return fake
}

func TestDump(t *testing.T) {
	const golden = "testdata/dump.txt"
	got := busy(t).Dump()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("dump is\n%s\nwant\n%s", got, want)
	}
}

func TestJournalHasWhatChanged(t *testing.T) {
	want := []string{
		"sysctl net/ipv4/ip_forward = 1", "create zvm10", "create zvm2", "bridge zwrmd0",
		"group zvm2 0x5a000001", "group zvm10 0x5a000001", "sysctl net/ipv4/conf/zvm10/rp_filter = 2",
		"down zvm10", "create zvm3", "delete zvm3", "inject 60 bytes into zvm2", "send 20 bytes to 172.16.0.10",
	}
	if got := busy(t).Journal(); !slices.Equal(got, want) {
		t.Errorf("journal is\n%q, want\n%q", got, want)
	}
}

func TestFailedOperationDoesNothing(t *testing.T) {
	ctx, fake := t.Context(), busy(t)
	before, done := fake.Dump(), fake.Journal()
	why := errors.New("the kernel is tired")
	var asked []string
	fake.Fail = func(op string) error {
		_ = fake.Dump() // it may look
		asked = append(asked, op)
		return why
	}
	_, errLinks := fake.Links(ctx)
	_, errRoutes := fake.Routes(ctx)
	_, errRoute := fake.Route(ctx, host.RouteQuery{Dest: netip.MustParseAddr("192.0.2.1"), Source: tap(2).Address.Addr(), In: "zvm2"})
	_, errSysctl := fake.Sysctl("net/ipv4/ip_forward")
	guest := netip.MustParseAddr("172.16.0.42")
	subnet, packet := netip.MustParsePrefix("172.16.0.0/16"), []byte{0: 0x45, 16: 172, 17: 16, 18: 0, 19: 10}
	for i, err := range []error{
		fake.CreateTAP(ctx, tap(5)), fake.SetGroup(ctx, model.GroupUnassigned, "zvm2"),
		fake.SetUp(ctx, true, "zvm10"), fake.DeleteLinks(ctx, "zvm2"), errLinks, errRoutes, errRoute, errSysctl,
		fake.EnsureBridge(ctx, "zwrmd1", netip.MustParsePrefix("10.1.0.1/16"), "zwrm"),
		fake.Forget(ctx, guest), fake.ForgetBetween(ctx, subnet), fake.ForgetOthers(ctx, subnet),
		fake.SetSysctl("net/ipv4/ip_forward", "0"), fake.Ping(ctx, guest),
		fake.Inject(ctx, "zvm2", make([]byte, 60)), fake.Send(ctx, packet),
	} {
		if !errors.Is(err, why) {
			t.Errorf("error %d is %v", i, err)
		}
	}
	want := []string{
		"links", "routes", "route 192.0.2.1 from 172.16.0.9 by zvm2", "read net/ipv4/ip_forward", "create zvm5", "group zvm2 0x5a000000", "up zvm10", "delete zvm2",
		"bridge zwrmd1", "forget 172.16.0.42", "forget within 172.16.0.0/16", "forget others within 172.16.0.0/16", "sysctl net/ipv4/ip_forward = 0", "ping 172.16.0.42",
		"inject 60 bytes into zvm2", "send 20 bytes to 172.16.0.10",
	}
	if !slices.Equal(asked, want) {
		t.Errorf("operations are\n%q, want\n%q", asked, want)
	}
	if after := fake.Dump(); after != before || !slices.Equal(fake.Journal(), done) {
		t.Errorf("the state was\n%s and is\n%s", before, after)
	}
}

func TestPingWaitsForTheGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, guest := hosttest.NewFake(), netip.MustParseAddr("172.16.0.14")
		answered := false
		go func() {
			if err := fake.Ping(t.Context(), guest); err != nil {
				t.Error(err)
			}
			answered = true
		}()
		fake.SetAlive(guest, true)
		synctest.Wait()
		if answered {
			t.Error("it answered without a link")
		}
		if err := fake.CreateTAP(t.Context(), tap(3)); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if !answered {
			t.Error("it does not answer")
		}
	})
}

func TestOthersChangeLinks(t *testing.T) {
	fake := hosttest.NewFake()
	if err := fake.CreateTAP(t.Context(), tap(3)); err != nil {
		t.Fatal(err)
	}
	if !fake.ChangeLink("zvm3", func(l *host.Link) { l.Addresses = nil }) {
		t.Error("there is no link to change")
	}
	links, err := fake.Links(t.Context())
	if err != nil || len(links) != 1 || len(links[0].Addresses) != 0 {
		t.Errorf("links are %+v, error %v", links, err)
	}
	if !fake.RemoveLink("zvm3") || fake.RemoveLink("zvm3") || fake.ChangeLink("zvm3", func(*host.Link) {}) {
		t.Error("the link is not gone after it was removed once")
	}
}

package guest

import (
	"bytes"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestDescribe(t *testing.T) {
	n := Network{Address: netip.MustParsePrefix("172.16.0.2/30"), HostName: "web-0"}
	if got, want := n.describe("eth0"), "eth0 172.16.0.2/30, host name web-0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	n.Gateway = netip.MustParseAddr("172.16.0.1")
	if got, want := n.describe("eth0"), "eth0 172.16.0.2/30 via 172.16.0.1, host name web-0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestBringUp applies an ip= value while the device is still to come, and once
// more, as after a kernel that has applied it itself.
func TestBringUp(t *testing.T) {
	if !ownNamespaces(t) {
		return
	}
	mountOver(t, "/etc")
	added := make(chan error)
	go func() { added <- addTAP("eth0") }()

	var said bytes.Buffer
	for range 2 {
		BringUp(NewConsole(&said), "172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0:off:1.1.1.1")
	}
	if err := <-added; err != nil {
		t.Fatal(err)
	}
	line := "zwrm-init: eth0 172.16.0.2/30 via 172.16.0.1, host name web-0\n"
	if got := said.String(); got != line+line {
		t.Errorf("said %q", got)
	}
	if got, want := kernelNetwork(t), `lo up 127.0.0.1/8
eth0 up 172.16.0.2/30
route default via 172.16.0.1 dev eth0
route 172.16.0.0/30 dev eth0
`; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if name, err := os.Hostname(); err != nil || name != "web-0" {
		t.Errorf("host name %q, %v", name, err)
	}
	if text, err := os.ReadFile("/etc/resolv.conf"); err != nil || string(text) != "nameserver 1.1.1.1\n" {
		t.Errorf("resolv.conf %q, %v", text, err)
	}
}

func TestBringUpAnyDevice(t *testing.T) {
	if !ownNamespaces(t) {
		return
	}
	mountOver(t, "/etc")
	if err := addTAP("ens3"); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	BringUp(NewConsole(&said), "172.16.0.2:::255.255.255.252:web-0::off")
	if got, want := said.String(), "zwrm-init: ens3 172.16.0.2/30, host name web-0\n"; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
}

// TestBringUpBadValue: the guest goes on with what there is.
func TestBringUpBadValue(t *testing.T) {
	if !ownNamespaces(t) {
		return
	}
	mountOver(t, "/etc")
	var said bytes.Buffer
	if n := BringUp(NewConsole(&said), "2001:db8::1"); n.Address.IsValid() {
		t.Errorf("got %+v", n)
	}
	if got := said.String(); !strings.HasPrefix(got, `zwrm-init: read ip="2001:db8::1": `) {
		t.Errorf("said %q", got)
	}
	if got, want := kernelNetwork(t), "lo up 127.0.0.1/8\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// addTAP makes a device that looks to the guest like its own.
func addTAP(name string) error {
	return netlink.LinkAdd(&netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: name},
		Mode:      netlink.TUNTAP_MODE_TAP,
		Flags:     netlink.TUNTAP_NO_PI,
	})
}

// kernelNetwork returns the kernel's IPv4 configuration as text.
func kernelNetwork(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		attrs := link.Attrs()
		state := "down"
		if strings.Contains(attrs.Flags.String(), "up") {
			state = "up"
		}
		b.WriteString(attrs.Name + " " + state)
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if err != nil {
			t.Fatal(err)
		}
		for _, addr := range addrs {
			b.WriteString(" " + addr.IPNet.String())
		}
		b.WriteString("\n")
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range routes {
		link, err := netlink.LinkByIndex(route.LinkIndex)
		if err != nil {
			t.Fatal(err)
		}
		if ones, _ := route.Dst.Mask.Size(); ones == 0 {
			b.WriteString("route default via " + route.Gw.String())
		} else {
			b.WriteString("route " + route.Dst.String())
		}
		b.WriteString(" dev " + link.Attrs().Name + "\n")
	}
	return b.String()
}

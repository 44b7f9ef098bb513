package trace_test

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/iptables"
	"zwrm/internal/firewall/nftables"
	"zwrm/internal/firewall/trace"
	"zwrm/internal/host"
	"zwrm/internal/host/nstest"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// TestMain runs every test of the package in a network namespace of its own.
func TestMain(m *testing.M) { nstest.Main(m) }

// world is a host with the rules of a dataplane, a machine behind its interface eth0,
// and guests: 1 and 2 of app web, 3 of app db. It is the network namespace of the
// test's process.
type world struct {
	kernel *host.Kernel
	layout ipam.Layout
}

// Addresses of the host's interface eth0 and of the machine behind it.
const hostAddress, outsideAddress = "192.0.2.1", "192.0.2.2"

const web, db = model.GroupUnassigned + 1, model.GroupUnassigned + 2

func newWorld(t *testing.T) *world {
	t.Helper()
	layout, err := ipam.NewLayout(netip.MustParsePrefix("172.16.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := host.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kernel.Close() })
	t.Cleanup(func() { flush(t) })
	w := &world{kernel: kernel, layout: layout}
	var here *nstest.Namespace
	outside := nstest.New(t)
	here.Set(t, "net/ipv4/ip_forward", "1")
	nstest.Veth(t, nil, "eth0", outside, "eth0")
	here.Address(t, "eth0", netip.MustParsePrefix(hostAddress+"/24"))
	here.Route(t, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr(outsideAddress))
	outside.Address(t, "eth0", netip.MustParsePrefix(outsideAddress+"/24"))
	w.guest(t, 1, web)
	w.guest(t, 2, web)
	w.guest(t, 3, db)
	return w
}

// guest makes a guest of an app.
func (w *world) guest(t *testing.T, slot ipam.Slot, app model.Group) {
	t.Helper()
	address := netip.PrefixFrom(w.layout.Guest(slot), 30)
	tap := host.TAP{Name: slot.TAP(), MAC: ipam.GatewayMAC(), MTU: 1500, Address: netip.PrefixFrom(w.layout.Gateway(slot), 30)}
	if err := w.kernel.CreateTAP(t.Context(), tap); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.kernel.DeleteLinks(context.Background(), tap.Name); err != nil {
			t.Error(err)
		}
	})
	w.group(t, slot, app)
	nstest.NewGuest(t, tap.Name, address, w.layout.Gateway(slot), w.layout.GuestMAC(slot))
}

func (w *world) group(t *testing.T, slot ipam.Slot, app model.Group) {
	t.Helper()
	if err := w.kernel.SetGroup(t.Context(), app, slot.TAP()); err != nil {
		t.Fatal(err)
	}
}

// link returns a link of the host.
func (w *world) link(t *testing.T, name string) host.Link {
	t.Helper()
	links, err := w.kernel.Links(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Name == name {
			return l
		}
	}
	t.Fatalf("there is no link %q", name)
	return host.Link{}
}

// fromVM sends a packet as a guest and follows it.
func (w *world) fromVM(t *testing.T, slot ipam.Slot, to string, service model.Service) trace.Result {
	t.Helper()
	return w.received(t, slot.TAP(), trace.NewPacket(w.layout.Guest(slot), netip.MustParseAddr(to), service), w.layout.GuestMAC(slot))
}

// received has a packet received by a link, and follows it.
func (w *world) received(t *testing.T, device string, packet trace.Packet, from ipam.MAC) trace.Result {
	t.Helper()
	frame := packet.Frame(from, w.link(t, device).MAC)
	result, err := trace.Run(t.Context(), nil, trace.Probe{Packet: packet, Device: device}, func() error {
		return w.kernel.Inject(t.Context(), device, frame)
	})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// fromHost sends a packet as the host, and follows it.
func (w *world) fromHost(t *testing.T, to string) trace.Result {
	t.Helper()
	dest := netip.MustParseAddr(to)
	hop, err := w.kernel.Route(t.Context(), host.RouteQuery{Dest: dest})
	if err != nil {
		t.Fatal(err)
	}
	packet := trace.NewPacket(hop.Source, dest, model.Service{})
	result, err := trace.Run(t.Context(), nil, trace.Probe{Packet: packet}, func() error { return w.kernel.Send(t.Context(), packet.Bytes()) })
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// rules returns the rules of the world.
func rules() firewall.Ruleset {
	return firewall.Build(firewall.Policy{
		Subnet: netip.MustParsePrefix("172.16.0.0/16"), External: "eth0", Private: true,
		EgressDeny: []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")},
		HostAccess: []model.Service{tcp(8080)},
		Apps:       []firewall.App{{Name: "web", Group: web}},
	})
}

// handles are the numbers that the kernel gives to rules.
var handles = regexp.MustCompile(`rule \d+ "`)

// owner is what nft says of a table's owner; nft 1.0.6 and later differ in how.
var owner = regexp.MustCompile(`\{( # progname \S+)?\n(\tflags owner\n)?`)

func tcp(port uint16) model.Service { return model.Service{Protocol: model.TCP, Port: port} }
func udp(port uint16) model.Service { return model.Service{Protocol: model.UDP, Port: port} }

// onBoth runs a test in a world of each dataplane.
func onBoth(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("nftables", func(t *testing.T) {
		w := newWorld(t)
		d, err := nftables.Open(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		if err := d.Apply(t.Context(), rules()); err != nil {
			t.Fatal(err)
		}
		test(t, w)
	})
	t.Run("iptables", func(t *testing.T) {
		variant(t, "nft")
		w := newWorld(t)
		applyIptables(t)
		test(t, w)
	})
}

func applyIptables(t *testing.T) *iptables.Dataplane {
	t.Helper()
	d, err := iptables.Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Apply(t.Context(), rules()); err != nil {
		t.Fatal(err)
	}
	return d
}

// variant makes the name iptables mean one of its variants, "nft" or "legacy".
func variant(t *testing.T, name string) {
	t.Helper()
	dir := t.TempDir()
	for _, program := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			path, err := exec.LookPath(program + "-" + name + suffix)
			if err != nil {
				t.Fatal(err)
			}
			if path, err = filepath.EvalSymlinks(path); err != nil { // which variant the program is, and what it does, it reads off its name
				t.Fatal(err)
			}
			if err := os.Symlink(path, filepath.Join(dir, program+suffix)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// run runs a program on the namespace, as somebody else on the host does.
func run(t *testing.T, stdin string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func flush(t *testing.T) {
	t.Helper()
	run(t, "", "nft", "flush", "ruleset")
}

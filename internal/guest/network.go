package guest

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
)

// BringUp gives the guest the network of an ip= value and says on the console
// what it has become, in one line. The loopback comes up in any case. It returns
// the network so that the names in it can be written to the root file system.
func BringUp(console Console, value string) Network {
	console.Report(loopbackUp())
	n, err := ParseIP(value)
	if err != nil {
		console.Report(err)
		return Network{}
	}
	if !n.Address.IsValid() {
		console.Say("no network: the kernel command line asks for none")
		return n
	}
	console.Report(errors.Join(n.SetHostName(), n.WriteNames("/")))
	device, err := n.Apply()
	if err != nil {
		console.Report(err)
		return n
	}
	console.Say("%s", n.describe(device))
	return n
}

// describe returns what there is now, as in
// "eth0 172.16.0.2/30 via 172.16.0.1, host name web-0".
func (n Network) describe(device string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", device, n.Address)
	if n.Gateway.IsValid() {
		fmt.Fprintf(&b, " via %s", n.Gateway)
	}
	fmt.Fprintf(&b, ", host name %s", n.HostName)
	return b.String()
}

// Apply waits for the device, gives it the address, brings it up and sets the
// default route. It returns the device's name. A kernel with CONFIG_IP_PNP has
// done all this before; then every step finds its work done and changes nothing.
func (n Network) Apply() (string, error) {
	link, err := n.link()
	if err != nil {
		return "", err
	}
	name := link.Attrs().Name
	addr, err := netlink.ParseAddr(n.Address.String())
	if err != nil {
		return name, fmt.Errorf("give %q the address %s: %w", name, n.Address, err)
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return name, fmt.Errorf("give %q the address %s: %w", name, n.Address, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return name, fmt.Errorf("bring up %q: %w", name, err)
	}
	if !n.Gateway.IsValid() {
		return name, nil
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: n.Gateway.AsSlice()}
	if err := netlink.RouteReplace(route); err != nil {
		return name, fmt.Errorf("route through %s on %q: %w", n.Gateway, name, err)
	}
	return name, nil
}

// link waits until the network's device is there.
func (n Network) link() (netlink.Link, error) {
	what := fmt.Sprintf("network device %q", n.Device)
	if n.Device == "" {
		what = "a network device"
	}
	var found netlink.Link
	err := await(what, func() (bool, error) {
		links, err := netlink.LinkList()
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			return false, nil // a device came while the kernel was listing: look again
		}
		if err != nil {
			return false, fmt.Errorf("list network devices: %w", err)
		}
		for _, link := range links {
			if n.wants(link.Attrs()) {
				found = link
				return true, nil
			}
		}
		return false, nil
	})
	return found, err
}

func (n Network) wants(link *netlink.LinkAttrs) bool {
	if n.Device != "" {
		return link.Name == n.Device
	}
	return link.Flags&net.FlagLoopback == 0 && link.EncapType == "ether"
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	return nil
}

package guest

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"strings"
)

// Network is the static configuration of the guest's one network device.
type Network struct {
	Address  netip.Prefix // of the guest; not valid: no network is asked for
	Gateway  netip.Addr   // not valid: no default route
	HostName string
	Device   string       // empty: the first that is not the loopback
	DNS      []netip.Addr // at most two
}

// Limits of the kernel.
const (
	maxHostName = 64 // bytes, __NEW_UTS_LEN
	maxDevice   = 15 // bytes, IFNAMSIZ without its final NUL
)

// The fields of ip= in their order.
const (
	fieldClient = iota
	fieldServer
	fieldGateway
	fieldNetmask
	fieldHostName
	fieldDevice
	fieldAutoconf
	fieldDNS0
	fieldDNS1
	fieldNTP0
	fieldCount
)

// ParseIP reads the value of ip= in the form of Linux
// Documentation/admin-guide/nfs/nfsroot.rst:
//
//	<client>:<server>:<gateway>:<netmask>:<host name>:<device>:<autoconf>:<dns0>:<dns1>:<ntp0>
//
// Fields may be left out from the end or be empty, and 0.0.0.0 is the same as
// empty. The server and the time server are checked and not used. Without a
// netmask the class of the address decides, and without a host name the address
// is the name, as in the kernel. "off" and "none" ask for no network. Whatever
// needs an answer from the network (DHCP, BOOTP, RARP) is an error: ZWRM
// configures statically.
func ParseIP(value string) (Network, error) {
	n, err := parseIP(value)
	if err != nil {
		return Network{}, fmt.Errorf("read ip=%q: %w", value, err)
	}
	return n, nil
}

func parseIP(value string) (Network, error) {
	switch value {
	case "", "off", "none":
		return Network{}, nil
	case "on", "any", "dhcp", "bootp", "rarp", "both":
		return Network{}, fmt.Errorf("%q needs an answer from the network: only static addresses are known", value)
	}
	fields := strings.Split(value, ":")
	if len(fields) > fieldCount {
		return Network{}, fmt.Errorf("%d fields: at most %d are known", len(fields), fieldCount)
	}
	fields = append(fields, make([]string, fieldCount-len(fields))...)
	addrs := make(map[int]netip.Addr)
	for _, f := range []int{fieldClient, fieldServer, fieldGateway, fieldNetmask, fieldDNS0, fieldDNS1, fieldNTP0} {
		addr, err := parseAddr(fields[f])
		if err != nil {
			return Network{}, fmt.Errorf("%s %w", fieldName(f), err)
		}
		addrs[f] = addr
	}
	if err := checkAutoconf(fields[fieldAutoconf]); err != nil {
		return Network{}, err
	}
	n := Network{Gateway: addrs[fieldGateway], Device: fields[fieldDevice]}
	for _, f := range []int{fieldDNS0, fieldDNS1} {
		if addrs[f].IsValid() {
			n.DNS = append(n.DNS, addrs[f])
		}
	}
	var err error
	if n.Address, err = clientPrefix(addrs[fieldClient], addrs[fieldNetmask]); err != nil {
		return Network{}, err
	}
	if n.HostName, err = hostName(fields[fieldHostName], n.Address.Addr()); err != nil {
		return Network{}, err
	}
	return n, n.check()
}

// check tells what the kernel would refuse later with less to say.
func (n Network) check() error {
	if !deviceNameOK(n.Device) {
		return fmt.Errorf("device %q is no name of a network device", n.Device)
	}
	if !n.Gateway.IsValid() {
		return nil
	}
	if n.Gateway == n.Address.Addr() {
		return fmt.Errorf("gateway %q is the guest's own address", n.Gateway)
	}
	if !n.Address.Contains(n.Gateway) {
		return fmt.Errorf("gateway %q lies outside %q", n.Gateway, n.Address.Masked())
	}
	return nil
}

// fieldName names the fields that hold an address.
func fieldName(field int) string {
	switch field {
	case fieldClient:
		return "client"
	case fieldServer:
		return "server"
	case fieldGateway:
		return "gateway"
	case fieldNetmask:
		return "netmask"
	case fieldNTP0:
		return "time server"
	default:
		return "name server"
	}
}

// parseAddr reads an IPv4 address, or none from a field that is empty or 0.0.0.0.
func parseAddr(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(s)
	if err != nil || !addr.Is4() {
		return netip.Addr{}, fmt.Errorf("%q is not an IPv4 address", s)
	}
	if addr.IsUnspecified() {
		return netip.Addr{}, nil
	}
	return addr, nil
}

// checkAutoconf accepts what the kernel accepts: with a client address given no
// protocol is asked, whatever the field says.
func checkAutoconf(s string) error {
	switch s {
	case "", "off", "none", "on", "any", "dhcp", "bootp", "rarp", "both":
		return nil
	}
	return fmt.Errorf("autoconf %q is not known: use \"off\"", s)
}

// clientPrefix joins the guest's address and its netmask.
func clientPrefix(client, netmask netip.Addr) (netip.Prefix, error) {
	switch {
	case !client.IsValid():
		return netip.Prefix{}, fmt.Errorf("no client address")
	case client.IsMulticast(), client.IsLoopback(), client == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Prefix{}, fmt.Errorf("client %q is no address of a host", client)
	}
	if !netmask.IsValid() {
		return classful(client)
	}
	mask := netmask.As4()
	ones := bits.LeadingZeros32(^binary.BigEndian.Uint32(mask[:]))
	if bits.OnesCount32(binary.BigEndian.Uint32(mask[:])) != ones {
		return netip.Prefix{}, fmt.Errorf("netmask %q has holes", netmask)
	}
	return netip.PrefixFrom(client, ones), nil
}

// classful is how the kernel guesses a netmask (net/ipv4/ipconfig.c,
// ic_defaults; the classes are those of RFC 791 section 3.2).
func classful(client netip.Addr) (netip.Prefix, error) {
	switch first := client.As4()[0]; {
	case first < 128:
		return netip.PrefixFrom(client, 8), nil
	case first < 192:
		return netip.PrefixFrom(client, 16), nil
	case first < 224:
		return netip.PrefixFrom(client, 24), nil
	}
	return netip.Prefix{}, fmt.Errorf("client %q has no class to take a netmask from", client)
}

// hostName returns the name up to the first dot: what follows is a domain to
// the kernel. Without a name it is the address.
func hostName(field string, client netip.Addr) (string, error) {
	if field == "" {
		return client.String(), nil
	}
	name, _, _ := strings.Cut(field, ".")
	if name == "" || len(name) > maxHostName {
		return "", fmt.Errorf("host name %q has not 1 to %d characters", name, maxHostName)
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
			return "", fmt.Errorf("host name %q has %q: only letters, digits, \"-\" and \"_\" are allowed", name, r)
		}
	}
	return name, nil
}

// deviceNameOK is the rule of dev_valid_name in the kernel's net/core/dev.c; the
// empty name stands for any device.
func deviceNameOK(name string) bool {
	if len(name) > maxDevice || name == "." || name == ".." {
		return false
	}
	for _, b := range []byte(name) {
		if b <= ' ' || b == '/' || b == ':' || b >= 0x7f {
			return false
		}
	}
	return true
}

package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// Of linux/rtnetlink.h and linux/if_link.h, which golang.org/x/sys does not name.
const (
	filterSkipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS: a quarter of a link's message
	tunMultiQueue   = 7      // IFLA_TUN_MULTI_QUEUE
)

// device is a link with what only those who change it have to know.
type device struct {
	Link
	queueLength uint32 // packets
	persistent  bool
	owner       uint32 // who else than root may open it; nobody: everybody
	multiQueue  bool
	linkLocal   bool // would make itself an IPv6 address
	ipv6        bool // has IPv6
	stp         bool // of a bridge: the spanning tree protocol runs
}

// parse reads a link's message (RTM_NEWLINK). Addresses are not part of it.
func (d *device) parse(payload []byte, settings []Setting) {
	*d = device{persistent: true, owner: nobody}
	if len(payload) < unix.SizeofIfInfomsg {
		return
	}
	d.Index = int(netlink.Uint32(payload, 4))
	d.Up = netlink.Uint32(payload, 8)&unix.IFF_UP != 0
	d.Carrier = netlink.Uint32(payload, 8)&unix.IFF_LOWER_UP != 0
	var spec []byte
	opened := false
	for attribute, value := range netlink.Attributes(payload[unix.SizeofIfInfomsg:]) {
		switch attribute {
		case unix.IFLA_IFNAME:
			d.Name = string(netlink.Text(value))
		case unix.IFLA_ADDRESS:
			if len(value) == len(d.MAC) {
				d.MAC = ipam.MAC(value)
			}
		case unix.IFLA_MTU:
			d.MTU = int(netlink.Uint32(value, 0))
		case unix.IFLA_TXQLEN:
			d.queueLength = netlink.Uint32(value, 0)
		case unix.IFLA_GROUP:
			d.Group = model.Group(netlink.Uint32(value, 0))
		case unix.IFLA_IFALIAS:
			d.Alias = string(netlink.Text(value))
		case unix.IFLA_CARRIER:
			opened = len(value) == 1 && value[0] != 0
		case unix.IFLA_LINKINFO:
			d.parseInfo(value)
		case unix.IFLA_AF_SPEC:
			spec = value
		}
	}
	d.Opened = d.Kind == KindTAP && opened // drivers/net/tun.c tun_attach, __tun_detach
	d.linkLocal, d.ipv6 = ipv6Of(spec)
	if strings.HasPrefix(d.Name, ipam.TAPPrefix) {
		d.Hardening = hardening(d.Name, spec, settings)
		if d.notOwned() {
			d.Hardening.Wrong = append(d.Hardening.Wrong, NotOwned)
		}
	}
}

// parseInfo reads what kind of link it is (IFLA_LINKINFO).
func (d *device) parseInfo(info []byte) {
	var data []byte
	for attribute, value := range netlink.Attributes(info) {
		switch attribute {
		case unix.IFLA_INFO_KIND:
			d.Kind = kind(netlink.Text(value))
		case unix.IFLA_INFO_DATA:
			data = value
		}
	}
	for attribute, value := range netlink.Attributes(data) {
		if d.Kind == KindBridge && attribute == unix.IFLA_BR_STP_STATE {
			d.stp = netlink.Uint32(value, 0) != 0
		}
		if d.Kind != KindTUN && d.Kind != KindTAP {
			continue
		}
		if attribute == unix.IFLA_TUN_OWNER {
			d.owner = netlink.Uint32(value, 0)
		}
		if len(value) != 1 {
			continue
		}
		switch attribute {
		case unix.IFLA_TUN_TYPE:
			if value[0] == unix.IFF_TAP {
				d.Kind = KindTAP
			}
		case unix.IFLA_TUN_PERSIST:
			d.persistent = value[0] != 0
		case tunMultiQueue:
			d.multiQueue = value[0] != 0
		}
	}
}

// nobody is the owner of a TAP that has none, as the kernel has it (INVALID_UID).
const nobody = 1<<32 - 1

// notOwned reports whether a TAP, which no process has open, can be opened by
// others than root. That of a VMM can be opened by nobody, and only the VMM could
// change whose it is: an earlier zwrmd left that open.
func (d *device) notOwned() bool { return d.Kind == KindTAP && d.owner != 0 && !d.Opened }

// kind returns the name of a kind without a copy of the common ones.
func kind(name []byte) Kind {
	switch string(name) {
	case string(KindTUN):
		return KindTUN
	case string(KindBridge):
		return KindBridge
	}
	return Kind(name)
}

// ipv6Of reads of a link's settings (IFLA_AF_SPEC) whether it has IPv6, and
// would make itself an address then.
func ipv6Of(spec []byte) (linkLocal, enabled bool) {
	for family, values := range netlink.Attributes(spec) {
		if family != unix.AF_INET6 {
			continue
		}
		for attribute, value := range netlink.Attributes(values) {
			switch attribute {
			case unix.IFLA_INET6_ADDR_GEN_MODE:
				linkLocal = len(value) != 1 || value[0] != addrGenNone
			case unix.IFLA_INET6_CONF:
				enabled = netlink.Uint32(value, 4*devconfDisableIPv6) == 0
			}
		}
	}
	return linkLocal, enabled
}

// foreign says why a link of this name is not a TAP of ours; nil: it is one.
func (d *device) foreign(name string) error {
	switch {
	case d.Name != name: // the kernel finds links by their alternative names, too
		return fmt.Errorf("the name is an alternative name of link %q: %w", d.Name, ErrForeign)
	case d.Kind != KindTAP:
		return fmt.Errorf("the name is that of a link of kind %q: %w", d.Kind, ErrForeign)
	case !d.Group.Known():
		return fmt.Errorf("the name is that of a TAP in group %s: %w", d.Group, ErrForeign)
	}
	return nil
}

// lookUp returns one link without its addresses.
func lookUp(conn *netlink.Conn, name string) (device, error) {
	request := netlink.NewLink(unix.RTM_GETLINK, 0, 0, 0, 0)
	request.Text(unix.IFLA_IFNAME, name)
	request.Uint32(unix.IFLA_EXT_MASK, filterSkipStats)
	var d device
	settings := TAPSettings()
	if err := conn.Query(request, func(payload []byte) { d.parse(payload, settings) }); err != nil {
		return device{}, fmt.Errorf("look up link: %w", linkError(err))
	}
	return d, nil
}

// device returns one link with its addresses.
func (k *Kernel) device(name string) (device, error) {
	d, err := lookUp(k.route, name)
	if err != nil {
		return device{}, err
	}
	err = retry(func() error {
		d.Addresses = nil
		return k.addresses(k.route, d.Index, func(_ int, address netip.Prefix) {
			d.Addresses = append(d.Addresses, address)
		})
	})
	if err != nil {
		return device{}, fmt.Errorf("look up addresses: %w", err)
	}
	return d, nil
}

// address gives a link one IPv4 address, takes all others away and brings it up.
//
// If it has others, its own goes as well, and comes back in the same system call:
// as a secondary of one that goes it would vanish with that.
func (k *Kernel) address(have device, address netip.Prefix) error {
	var drop, set []*netlink.Request
	if len(have.Addresses) != 1 || have.Addresses[0] != address {
		drop = have.dropAddresses()
		set = append(set, addAddress(have.Index, address))
	}
	set = append(set, bringUp(have.Index))
	_ = k.change(k.route, opAddress, append(drop, set...)...)
	for _, r := range drop {
		if err := refusedDrop(r); err != nil {
			return fmt.Errorf("remove addresses: %w", linkError(err))
		}
	}
	return refusedAddress(address, set)
}

// dropAddresses returns the requests that take all addresses of a link.
func (d *device) dropAddresses() []*netlink.Request {
	requests := make([]*netlink.Request, len(d.Addresses))
	for i, address := range d.Addresses {
		requests[i] = netlink.NewAddress(unix.RTM_DELADDR, 0, d.Index, address)
	}
	return requests
}

// refusedDrop returns why the kernel refused to take an address. A secondary one that went
// with its primary is no error.
func refusedDrop(r *netlink.Request) error {
	if errors.Is(r.Err(), unix.EADDRNOTAVAIL) {
		return nil
	}
	return r.Err()
}

func addAddress(index int, address netip.Prefix) *netlink.Request {
	return netlink.NewAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, address)
}

func bringUp(index int) *netlink.Request {
	return netlink.NewLink(unix.RTM_SETLINK, 0, index, unix.IFF_UP, unix.IFF_UP)
}

// refusedAddress says which of the requests that set an address and bring a link up was
// refused.
func refusedAddress(address netip.Prefix, requests []*netlink.Request) error {
	for _, r := range requests {
		if r.Err() != nil {
			return fmt.Errorf("set address %s and bring link up: %w", address, linkError(r.Err()))
		}
	}
	return nil
}

// addresses calls each for the IPv4 addresses of one link, or of all for index 0.
// The kernel lists those of one link only since 4.20 (NETLINK_GET_STRICT_CHK);
// an older one lists all.
func (k *Kernel) addresses(conn *netlink.Conn, index int, each func(index int, address netip.Prefix)) error {
	var fixed [unix.SizeofIfAddrmsg]byte
	fixed[0] = unix.AF_INET
	binary.NativeEndian.PutUint32(fixed[4:], uint32(index))
	request := netlink.NewRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP, fixed[:])
	return conn.Query(request, func(payload []byte) {
		parseAddress(payload, func(at int, address netip.Prefix) {
			if index == 0 || index == at {
				each(at, address)
			}
		})
	})
}

// parseAddress reads the message of an address (struct ifaddrmsg).
func parseAddress(payload []byte, each func(index int, address netip.Prefix)) {
	if len(payload) < unix.SizeofIfAddrmsg {
		return
	}
	for attribute, value := range netlink.Attributes(payload[unix.SizeofIfAddrmsg:]) {
		if address, ok := netip.AddrFromSlice(value); ok && attribute == unix.IFA_LOCAL {
			each(int(netlink.Uint32(payload, 4)), netip.PrefixFrom(address, int(payload[1])))
		}
	}
}

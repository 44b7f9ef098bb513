package host

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
)

// Setting is a per-device setting of the kernel and the value that it has on
// every TAP of ZWRM.
type Setting struct {
	Family string // "ipv4" or "ipv6"
	Key    string
	Value  int32
	id     uint16 // IPV4_DEVCONF_* (linux/ip.h), DEVCONF_* (linux/ipv6.h)
}

// TAPSettings returns the settings of a TAP, with the reasons that Hardening
// gives.
func TAPSettings() []Setting {
	return []Setting{
		{"ipv4", "rp_filter", 1, 8},
		{"ipv4", "arp_ignore", 1, 19},
		{"ipv4", "arp_announce", 2, 18},
		{"ipv4", "proxy_arp", 0, 3},
		{"ipv4", "send_redirects", 0, 6},
		{"ipv4", "accept_redirects", 0, 4},
		{"ipv4", "secure_redirects", 0, 5},
		{"ipv4", "accept_source_route", 0, 9},
		{"ipv4", "accept_local", 0, 23},
		{"ipv4", "route_localnet", 0, 26},
		{"ipv4", "forwarding", 1, 1},
		{"ipv6", "disable_ipv6", 1, devconfDisableIPv6},
	}
}

const (
	devconfDisableIPv6 = 26 // DEVCONF_DISABLE_IPV6, counted from 0 as all of linux/ipv6.h
	addrGenNone        = 1  // IN6_ADDR_GEN_MODE_NONE (linux/if_link.h): no link-local address
	minMTUOfIPv6       = 1280
)

// Sysctl returns the setting's name for Kernel.Sysctl, as in
// "net/ipv4/conf/zvm3/rp_filter".
func (s Setting) Sysctl(link string) string {
	return "net/" + s.Family + "/conf/" + link + "/" + s.Key
}

// Wrong says that the setting has another value than it should, as in
// "net.ipv4.conf.zvm3.rp_filter = 0, not 1".
func (s Setting) Wrong(link string, value int32) string {
	return fmt.Sprintf("%s = %d, not %d", strings.ReplaceAll(s.Sysctl(link), "/", "."), value, s.Value)
}

// setIPv4 adds the IPv4 settings to a change of a link. One message sets them
// all (net/ipv4/devinet.c inet_set_link_af), where /proc takes a file each.
func setIPv4(r *netlink.Request, settings []Setting) {
	r.Nest(unix.IFLA_AF_SPEC, func() {
		r.Nest(unix.AF_INET, func() {
			r.Nest(unix.IFLA_INET_CONF, func() {
				for _, s := range settings {
					if s.Family == "ipv4" {
						r.Uint32(s.id, uint32(s.Value))
					}
				}
			})
		})
	})
}

// setNoLinkLocal adds to a change of a link that it gets no IPv6 address by
// itself.
func setNoLinkLocal(r *netlink.Request) {
	r.Nest(unix.IFLA_AF_SPEC, func() {
		r.Nest(unix.AF_INET6, func() {
			r.Bytes(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{addrGenNone})
		})
	})
}

// hardening compares the settings of a link, as the kernel lists them
// (IFLA_AF_SPEC), with those of a TAP. Without IPv6 on the link, as on one with
// an MTU that is too small for it, there is nothing to switch off.
func hardening(link string, spec []byte, settings []Setting) Hardening {
	var ipv4, ipv6 []byte
	for family, values := range netlink.Attributes(spec) {
		for attribute, value := range netlink.Attributes(values) {
			switch {
			case family == unix.AF_INET && attribute == unix.IFLA_INET_CONF:
				ipv4 = value
			case family == unix.AF_INET6 && attribute == unix.IFLA_INET6_CONF:
				ipv6 = value
			}
		}
	}
	var h Hardening
	for _, s := range settings {
		values, at := ipv4, int(s.id)-1 // linux/ip.h counts from 1
		if s.Family == "ipv6" {
			values, at = ipv6, int(s.id)
		}
		if values == nil && s.Family == "ipv6" {
			continue
		}
		if value := int32(netlink.Uint32(values, 4*at)); value != s.Value {
			h.Wrong = append(h.Wrong, s.Wrong(link, value))
		}
	}
	return h
}

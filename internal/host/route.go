package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
)

// RouteQuery is an IPv4 packet whose way the kernel is asked for.
type RouteQuery struct {
	Dest   netip.Addr
	Source netip.Addr // not valid: of a packet of the host, the kernel chooses it
	In     string     // device that it is received by; empty: the host itself sends it
}

// RouteType is what the kernel does with a packet.
type RouteType string

// The types. The last three are ways of not taking it.
const (
	RouteUnicast     RouteType = "unicast"     // it leaves by a device
	RouteLocal       RouteType = "local"       // it is for the host itself
	RouteBroadcast   RouteType = "broadcast"   // it is for everybody on a network of the host
	RouteMulticast   RouteType = "multicast"   // it is for a group that the host takes part in
	RouteUnreachable RouteType = "unreachable" // there is no route, or the device does not forward
	RouteProhibited  RouteType = "prohibited"  // a route forbids it
	RouteRefused     RouteType = "refused"     // a blackhole route, or an address that cannot be (rp_filter, martians)
)

// Hop is the way that the kernel sends a packet.
type Hop struct {
	Type   RouteType
	Device string     // it leaves by; empty: it does not leave
	Source netip.Addr // of a packet of the host, the one that it gets; else not valid
}

// Route returns the way that the kernel would send a packet, as `ip route get` does.
// The error wraps ErrNoLink if there is no device In. That the kernel does not take
// the packet is no error.
func (k *Kernel) Route(ctx context.Context, q RouteQuery) (Hop, error) {
	hop, err := k.lookUpRoute(ctx, q)
	if err != nil {
		return Hop{}, fmt.Errorf("look up route to %s: %w", q.Dest, err)
	}
	return hop, nil
}

func (k *Kernel) lookUpRoute(ctx context.Context, q RouteQuery) (Hop, error) {
	if err := ctx.Err(); err != nil {
		return Hop{}, err
	}
	if !q.Dest.Is4() || q.Source.IsValid() && !q.Source.Is4() {
		return Hop{}, errors.New("it is not IPv4")
	}
	request, err := k.routeRequest(q)
	if err != nil {
		return Hop{}, err
	}
	hop, index := Hop{Type: RouteRefused}, 0
	err = k.route.Query(request, func(payload []byte) { hop, index = parseHop(payload) })
	if refusal := refusalOf(err); refusal != "" {
		return Hop{Type: refusal}, nil
	}
	if err != nil {
		return Hop{}, err
	}
	if q.In == "" && !hop.Source.IsValid() {
		hop.Source = q.Source // the kernel does not repeat what it was told
	}
	// What the kernel takes for itself it shows as leaving by lo.
	if hop.Type == RouteLocal || q.In != "" && hop.Type != RouteUnicast {
		return hop, nil
	}
	hop.Device, err = k.nameOf(index)
	return hop, err
}

func (k *Kernel) routeRequest(q RouteQuery) (*netlink.Request, error) {
	fixed := [unix.SizeofRtMsg]byte{unix.AF_INET, 32}
	if q.Source.IsValid() {
		fixed[2] = 32
	}
	request := netlink.NewRequest(unix.RTM_GETROUTE, 0, fixed[:])
	request.Bytes(unix.RTA_DST, q.Dest.AsSlice())
	if q.Source.IsValid() {
		request.Bytes(unix.RTA_SRC, q.Source.AsSlice())
	}
	if q.In == "" {
		return request, nil
	}
	in, err := lookUp(k.route, q.In)
	if err != nil {
		return nil, fmt.Errorf("by %q: %w", q.In, err)
	}
	request.Uint32(unix.RTA_IIF, uint32(in.Index))
	return request, nil
}

// parseHop reads the answer (struct rtmsg). The device comes as its index.
func parseHop(payload []byte) (hop Hop, index int) {
	if len(payload) < unix.SizeofRtMsg {
		return Hop{Type: RouteRefused}, 0
	}
	hop.Type = RouteRefused
	switch payload[7] {
	case unix.RTN_UNICAST:
		hop.Type = RouteUnicast
	case unix.RTN_LOCAL:
		hop.Type = RouteLocal
	case unix.RTN_BROADCAST:
		hop.Type = RouteBroadcast
	case unix.RTN_MULTICAST:
		hop.Type = RouteMulticast
	}
	for attribute, value := range netlink.Attributes(payload[unix.SizeofRtMsg:]) {
		switch attribute {
		case unix.RTA_OIF:
			index = int(netlink.Uint32(value, 0))
		case unix.RTA_PREFSRC:
			hop.Source, _ = netip.AddrFromSlice(value)
		}
	}
	return hop, index
}

// refusalOf returns how the kernel refuses a packet (net/ipv4/route.c
// inet_rtm_getroute); empty: err is none of these. Linux before 6.13 says EXDEV of
// a source that rp_filter drops, later ones EINVAL.
func refusalOf(err error) RouteType {
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return RouteUnreachable
	case errors.Is(err, unix.EACCES):
		return RouteProhibited
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EXDEV):
		return RouteRefused
	}
	return ""
}

// nameOf returns the name of a link.
func (k *Kernel) nameOf(index int) (string, error) {
	var d device
	request := netlink.NewLink(unix.RTM_GETLINK, 0, index, 0, 0)
	request.Uint32(unix.IFLA_EXT_MASK, filterSkipStats)
	if err := k.route.Query(request, func(payload []byte) { d.parse(payload, nil) }); err != nil {
		return "", fmt.Errorf("look up link %d: %w", index, linkError(err))
	}
	return d.Name, nil
}

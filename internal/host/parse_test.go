package host

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
)

// Whatever a message holds, reading it takes nothing from beyond its end.
func FuzzParse(f *testing.F) {
	f.Add(make([]byte, unix.SizeofIfInfomsg))
	f.Add([]byte{2, 24, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0, 8, 0, 1, 0, 192, 0, 2, 0})
	f.Fuzz(func(_ *testing.T, payload []byte) {
		var d device
		d.parse(payload, TAPSettings())
		_ = d.foreign("zvm1")
		_ = appendRoute(nil, payload, map[uint32]string{1: "eth0"})
		_ = parseFlow(payload)
		_ = deleteFlow([]byte{unix.AF_INET, 0, 0, 0}, payload)
		_, _ = parseHop(payload)
		_, _ = parseNeighbours(payload)
		_, _, _ = parseNeighbour(payload)
		parseAddress(payload, func(int, netip.Prefix) {})
	})
}

func TestValidName(t *testing.T) {
	tests := []struct {
		name string
		want bool
	}{
		{"zvm0", true}, {"zvm4294967295", true}, {"zwrmd0", true}, {"fifteen-bytes-x", true},
		{"", false}, {".", false}, {"..", false}, {"sixteen-bytes-xx", false},
		{"zvm/0", false}, {"zvm:0", false}, {"zvm 0", false}, {"zvm%d", false}, {"zvm\n", false},
	}
	for _, test := range tests {
		if got := validName(test.name); got != test.want {
			t.Errorf("validName(%q) = %t", test.name, got)
		}
	}
}

// A route with two next hops is two routes (linux/rtnetlink.h struct rtnexthop).
func TestAppendRouteWithNextHops(t *testing.T) {
	fixed := [unix.SizeofRtMsg]byte{unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, 0, 0, unix.RTN_UNICAST}
	request := netlink.NewRequest(0, 0, fixed[:])
	hop := func(index byte) []byte { return []byte{8, 0, 0, 0, index, 0, 0, 0} }
	request.Bytes(unix.RTA_MULTIPATH, append(hop(1), hop(2)...))
	payload := request.Payload()
	routes := appendRoute(nil, payload, map[uint32]string{1: "eth0", 2: "eth1"})
	if len(routes) != 2 || routes[0].Device != "eth0" || routes[1].Device != "eth1" || routes[0].Dest.Bits() != 0 {
		t.Errorf("routes are %v", routes)
	}
}

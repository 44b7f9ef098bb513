package host

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
)

// Of linux/neighbour.h, which golang.org/x/sys does not name.
const (
	ndtaName       = 1 // NDTA_NAME
	ndtaThreshold3 = 4 // NDTA_THRESH3
	ndtaConfig     = 5 // NDTA_CONFIG
	sizeofNdtMsg   = 4 // struct ndtmsg
)

// Neighbours is the state of the neighbour table of IPv4 (ARP). The kernel has one
// for all network namespaces together.
type Neighbours struct {
	Entries int
	Max     int // gc_thresh3: a packet that needs one more is dropped
}

// Neighbours returns the state of the neighbour table. The settings below
// /proc/sys/net/ipv4/neigh say less: other namespaces than the first lack them.
func (k *Kernel) Neighbours(ctx context.Context) (Neighbours, error) {
	if err := ctx.Err(); err != nil {
		return Neighbours{}, err
	}
	fixed := [sizeofNdtMsg]byte{unix.AF_INET}
	var found Neighbours
	err := retry(func() error {
		return k.dump.Query(netlink.NewRequest(unix.RTM_GETNEIGHTBL, unix.NLM_F_DUMP, fixed[:]), func(payload []byte) {
			if n, ok := parseNeighbours(payload); ok {
				found = n
			}
		})
	})
	if err != nil {
		return Neighbours{}, fmt.Errorf("read the neighbour table: %w", err)
	}
	return found, nil
}

// parseNeighbours reads the message of the table itself. Those of its devices, which
// follow it, have neither bounds nor entries.
func parseNeighbours(payload []byte) (n Neighbours, ok bool) {
	if len(payload) < sizeofNdtMsg || payload[0] != unix.AF_INET {
		return n, false
	}
	var name string
	for attribute, value := range netlink.Attributes(payload[sizeofNdtMsg:]) {
		switch attribute {
		case ndtaName:
			name = string(netlink.Text(value))
		case ndtaThreshold3:
			n.Max = int(netlink.Uint32(value, 0))
		case ndtaConfig: // struct ndt_config
			n.Entries = int(netlink.Uint32(value, 4))
		}
	}
	return n, name == "arp_cache" && n.Max > 0
}

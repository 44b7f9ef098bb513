package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
	"zwrm/internal/model"
)

// Refused is how many packets the kernel refused by itself, before it asked any
// rule. It does not tell whose: these are the host's counters (RFC 4293).
type Refused struct {
	Malformed uint64 // the IPv4 header is wrong, or the packet is shorter than it says
	Fragments uint64 // reassembly failed: some overlap, or some never came
	IPv6      uint64 // discarded, above all since IPv6 is off on the device, as it is on every TAP
}

// Refused reads the counters of the calling thread's network namespace.
func (k *Kernel) Refused() (Refused, error) {
	ipv4, err := counters("snmp", "Ip")
	if err != nil {
		return Refused{}, err
	}
	extended, err := counters("netstat", "IpExt")
	if err != nil {
		return Refused{}, err
	}
	refused := Refused{Malformed: ipv4["InHdrErrors"] + extended["InTruncatedPkts"], Fragments: ipv4["ReasmFails"]}
	text, err := os.ReadFile(counterPath("snmp6"))
	switch {
	case errors.Is(err, fs.ErrNotExist): // a kernel without IPv6
		return refused, nil
	case err != nil:
		return Refused{}, fmt.Errorf("read the kernel's counters: %w", err)
	}
	for line := range bytes.Lines(text) { // one counter each
		if words := bytes.Fields(line); len(words) == 2 && string(words[0]) == "Ip6InDiscards" {
			refused.IPv6, err = strconv.ParseUint(string(words[1]), 10, 64)
		}
	}
	if err != nil {
		return Refused{}, fmt.Errorf("read the kernel's counters: %w", err)
	}
	return refused, nil
}

// NotTaken returns how many frames of each TAP of ours the kernel threw away before it
// asked any rule, by the number of the TAP: those of a kind that nobody here speaks,
// with a VLAN tag, for another Ethernet address, or sent while the TAP was down. With
// the TAP its counter goes. The list is as long as there are TAPs. It is nil if
// links came or went meanwhile: then it may lack some, and nothing waits for it.
func (k *Kernel) NotTaken(ctx context.Context) (map[int]uint64, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	frames := map[int]uint64{}
	request := netlink.NewLink(unix.RTM_GETLINK, unix.NLM_F_DUMP, 0, 0, 0)
	request.Nest(unix.IFLA_LINKINFO, func() { request.Bytes(unix.IFLA_INFO_KIND, []byte(KindTUN)) })
	err := k.dump.Query(request, func(payload []byte) {
		if index, n, ours := notTaken(payload); ours {
			frames[index] = n
		}
	})
	switch {
	case errors.Is(err, netlink.ErrInterrupted):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the counters of TAPs: %w", err)
	}
	return frames, nil
}

// notTaken reads a link's message (RTM_NEWLINK).
func notTaken(payload []byte) (index int, frames uint64, ours bool) {
	// Of struct rtnl_link_stats64 (linux/if_link.h). Before Linux 5.19 it ends before
	// the second.
	const dropped, otherHost = 6, 24
	if len(payload) < unix.SizeofIfInfomsg {
		return 0, 0, false
	}
	for attribute, value := range netlink.Attributes(payload[unix.SizeofIfInfomsg:]) {
		switch attribute {
		case unix.IFLA_GROUP:
			ours = model.Group(netlink.Uint32(value, 0)).Ours()
		case unix.IFLA_STATS64:
			for _, field := range []int{dropped, otherHost} {
				if len(value) >= 8*(field+1) {
					frames += binary.NativeEndian.Uint64(value[8*field:])
				}
			}
		}
	}
	return int(netlink.Uint32(payload, 4)), frames, ours
}

// counters reads a group of counters: a line of names and one of values, both
// beginning with the name of the group.
func counters(file, group string) (map[string]uint64, error) {
	text, err := os.ReadFile(counterPath(file))
	if err != nil {
		return nil, fmt.Errorf("read the kernel's counters: %w", err)
	}
	var names [][]byte
	values := map[string]uint64{}
	for line := range bytes.Lines(text) {
		words := bytes.Fields(line)
		switch {
		case len(words) == 0 || string(words[0]) != group+":":
		case names == nil:
			names = words
		case len(words) != len(names):
			return nil, fmt.Errorf("read the kernel's counters: %q has %d names and %d values", group, len(names), len(words))
		default:
			for i := 1; i < len(words); i++ {
				if n, err := strconv.ParseUint(string(words[i]), 10, 64); err == nil { // some are negative, none that is asked for
					values[string(names[i])] = n
				}
			}
		}
	}
	return values, nil
}

// counterPath is that of the calling thread: /proc/net would be the main thread's.
func counterPath(file string) string { return "/proc/thread-self/net/" + file }

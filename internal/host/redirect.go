package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
)

// Of linux/pkt_sched.h, linux/pkt_cls.h, linux/gen_stats.h and linux/tc_act, which
// golang.org/x/sys does not name.
const (
	tcmsgSize = 20 // struct tcmsg

	ingressHandle = 0xffff0000 // ffff: of the one ingress qdisc that a link can have
	ingressParent = 0xfffffff1 // TC_H_INGRESS

	actKind, actOptions, actStats = 1, 2, 4 // TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_ACT_STATS
	statsBasic                    = 1       // TCA_STATS_BASIC
	mirredParms                   = 2       // TCA_MIRRED_PARMS
	ingressRedirect               = 3       // TCA_INGRESS_REDIR
	stolen                        = 4       // TC_ACT_STOLEN

	matchallAct     = 2 // TCA_MATCHALL_ACT
	u32Sel, u32Act  = 5, 7
	u32Terminal     = 1 // TC_U32_TERMINAL
	bpfAct          = 1 // TCA_BPF_ACT
	bpfOpsN, bpfOps = 4, 5
)

// classifier is a kind of filter of packets, and how it matches all of them.
type classifier struct {
	kind   string
	option string // of the kernel's configuration
	action uint16 // the attribute that has the filter's actions
	match  func(*netlink.Request)
}

// classifiers returns those of which one is enough: a distribution's kernel has all,
// one made for microVMs not always the first.
func classifiers() []classifier {
	return []classifier{
		{"matchall", "CONFIG_NET_CLS_MATCHALL", matchallAct, func(*netlink.Request) {}},
		{"u32", "CONFIG_NET_CLS_U32", u32Act, func(r *netlink.Request) {
			// struct tc_u32_sel with one key, whose mask of 0 every packet matches.
			r.Bytes(u32Sel, append([]byte{u32Terminal, 0, 1, 15: 0}, make([]byte, 16)...))
		}},
		{"bpf", "CONFIG_NET_CLS_BPF", bpfAct, func(r *netlink.Request) {
			// struct sock_filter: return -1, the packet belongs to the filter's class.
			program := binary.NativeEndian.AppendUint16(nil, unix.BPF_RET|unix.BPF_K)
			program = binary.NativeEndian.AppendUint32(append(program, 0, 0), 0xffffffff)
			r.Bytes(bpfOpsN, binary.NativeEndian.AppendUint16(nil, 1))
			r.Bytes(bpfOps, program)
		}},
	}
}

// action is what a filter does with a packet.
type action struct {
	kind   string
	option string // of the kernel's configuration
}

// mirred is the action that hands a packet to another link.
func mirred() action { return action{"mirred", "CONFIG_NET_ACT_MIRRED"} }

// redirect makes the link hand all that it receives over to another, which then
// receives it. It returns the classifier that was taken.
func (s *scratch) redirect(target int, act action, kinds []classifier) (classifier, error) {
	qdisc := newTraffic(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, s.index, ingressHandle, ingressParent, 0)
	qdisc.Text(unix.TCA_KIND, "ingress")
	if err := s.change(opRedirect, qdisc); err != nil {
		return classifier{}, fmt.Errorf("filter what link %q receives: the kernel needs CONFIG_NET_SCH_INGRESS: %w", s.name, err)
	}
	var options []string
	for _, kind := range kinds {
		err := s.change(opRedirect, newFilter(s.index, target, kind, act))
		if err == nil {
			return kind, nil
		}
		if !errors.Is(err, unix.ENOENT) {
			return classifier{}, fmt.Errorf("filter what link %q receives by %q: %w", s.name, kind.kind, err)
		}
		// Either the classifier is unknown, or the action.
		if s.change(opRedirect, newFilter(s.index, target, kind, action{})) == nil {
			return classifier{}, fmt.Errorf("hand over what link %q receives: the kernel needs %s: %w", s.name, act.option, err)
		}
		options = append(options, kind.option)
	}
	return classifier{}, fmt.Errorf("filter what link %q receives: the kernel needs one of %s", s.name, strings.Join(options, ", "))
}

// newFilter returns the request for a filter that does one thing with all packets;
// nothing for the zero action.
func newFilter(link, target int, kind classifier, act action) *netlink.Request {
	// In network byte order, as the kernel keeps protocols.
	protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	request := newTraffic(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, link, 0, ingressHandle, 1<<16|uint32(protocol))
	request.Text(unix.TCA_KIND, kind.kind)
	request.Nest(unix.TCA_OPTIONS, func() {
		kind.match(request)
		if act == (action{}) {
			return
		}
		request.Nest(kind.action, func() {
			request.Nest(1, func() { // the first and only
				request.Text(actKind, act.kind)
				request.Nest(actOptions, func() { request.Bytes(mirredParms, redirectTo(target)) })
			})
		})
	})
	return request
}

// redirectTo returns struct tc_mirred.
func redirectTo(target int) []byte {
	var parms []byte
	for _, field := range []uint32{0, 0, stolen, 0, 0, ingressRedirect, uint32(target)} {
		parms = binary.NativeEndian.AppendUint32(parms, field)
	}
	return parms
}

// newTraffic returns a message about traffic control (struct tcmsg).
func newTraffic(kind, flags uint16, link int, handle, parent, info uint32) *netlink.Request {
	fixed := make([]byte, 4, tcmsgSize)
	for _, field := range []uint32{uint32(link), handle, parent, info} {
		fixed = binary.NativeEndian.AppendUint32(fixed, field)
	}
	return netlink.NewRequest(kind, flags, fixed)
}

// redirected returns how many packets the link handed over.
func (s *scratch) redirected(kind classifier) (packets uint32, err error) {
	request := newTraffic(unix.RTM_GETTFILTER, unix.NLM_F_DUMP, s.index, 0, ingressHandle, 0)
	err = retry(func() error {
		packets = 0
		return s.conn.Query(request, func(payload []byte) {
			if len(payload) < tcmsgSize {
				return
			}
			// struct gnet_stats_basic: 8 bytes that count bytes, 4 that count packets.
			stats := nested(payload[tcmsgSize:], unix.TCA_OPTIONS, kind.action, 1, actStats, statsBasic)
			packets += netlink.Uint32(stats, 8)
		})
	})
	return packets, err
}

// nested returns the value of an attribute within others, nil if there is none.
func nested(b []byte, path ...uint16) []byte {
	for _, attribute := range path {
		var inner []byte
		for kind, value := range netlink.Attributes(b) {
			if kind == attribute {
				inner = value
			}
		}
		b = inner
	}
	return b
}

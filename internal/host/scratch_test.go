package host

import (
	"context"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// newScratchOn returns the TAP for frames that enter by lo, until the test ends.
func newScratchOn(t *testing.T, target device) *scratch {
	t.Helper()
	k, err := Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := k.newScratch(target, ipam.MAC{2, 0, 0, 0, 0, 9})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
		if _, err := lookUp(k.route, s.name); err == nil {
			t.Errorf("link %q is left", s.name)
		}
		k.Close()
	})
	return s
}

// The TAP is nothing that rules know as a VM's, and has no IPv6 by which the kernel
// would begin to speak.
func TestScratchSaysNothing(t *testing.T) {
	s := newScratchOn(t, device{Link: Link{Index: 1, MAC: ipam.MAC{2, 0, 0, 0, 0, 7}}})
	if err := s.up(); err != nil {
		t.Fatal(err)
	}
	d, err := lookUp(s.conn, s.name)
	if err != nil {
		t.Fatal(err)
	}
	if d.Group.Ours() || d.Group != model.Group(0) || strings.HasPrefix(d.Name, ipam.TAPPrefix) || d.MAC != (ipam.MAC{2, 0, 0, 0, 0, 7}) {
		t.Errorf("link is %+v", d.Link)
	}
	if !d.Up || d.persistent || d.multiQueue || d.ipv6 || d.linkLocal {
		t.Errorf("link is %+v", d)
	}
}

// What a tunnel receives is all for the host.
func TestScratchOfALinkWithoutEthernet(t *testing.T) {
	s := newScratchOn(t, device{Link: Link{Index: 1}})
	if d, err := lookUp(s.conn, s.name); err != nil || d.MAC != (ipam.MAC{2, 0, 0, 0, 0, 9}) {
		t.Errorf("link is %+v, error %v", d.Link, err)
	}
}

// Any one of the classifiers is enough, and a kernel that lacks something is told.
// This one lacks what it is asked for by a name that nothing has.
func TestRedirectWithWhatThereIs(t *testing.T) {
	unknown := func(c classifier) classifier { c.kind = "nosuch"; return c }
	matchall, u32, bpf := classifiers()[0], classifiers()[1], classifiers()[2]
	for _, test := range []struct {
		what  string
		act   action
		kinds []classifier
		taken string
		says  string
	}{
		{"u32", mirred(), []classifier{unknown(matchall), u32, bpf}, "u32", ""},
		{"bpf", mirred(), []classifier{unknown(matchall), unknown(u32), bpf}, "bpf", ""},
		{"no classifier", mirred(), []classifier{unknown(matchall), unknown(u32), unknown(bpf)}, "",
			"needs one of CONFIG_NET_CLS_MATCHALL, CONFIG_NET_CLS_U32, CONFIG_NET_CLS_BPF"},
		{"no mirred", action{"nosuch", "CONFIG_NET_ACT_MIRRED"}, []classifier{u32}, "", "needs CONFIG_NET_ACT_MIRRED"},
	} {
		t.Run(test.what, func(t *testing.T) {
			s := newScratchOn(t, device{Link: Link{Index: 1, MAC: ipam.MAC{2, 0, 0, 0, 0, 7}}})
			taken, err := s.redirect(1, test.act, test.kinds)
			if test.says != "" {
				if err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("error is %v", err)
				}
				return
			}
			if err != nil || taken.kind != test.taken {
				t.Fatalf("took %q, error %v", taken.kind, err)
			}
			if n, err := s.redirected(taken); n != 0 || err != nil {
				t.Errorf("%d packets were handed over, error %v", n, err)
			}
			if err := s.up(); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Write(s.fd, make([]byte, virtioHeader+60)); err != nil {
				t.Fatal(err)
			}
			if n, err := s.redirected(taken); n != 1 || err != nil {
				t.Errorf("%d packets were handed over, error %v", n, err)
			}
		})
	}
}

// The kernel may leave it to another CPU to receive a packet, which then is not handed
// over when it was written.
func TestTakenWaitsForAnotherCPU(t *testing.T) {
	const mask = "net/core/rps_default_mask" // of CPUs, for new links
	if err := writeSysctl(mask, "3"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := writeSysctl(mask, "0"); err != nil {
			t.Error(err)
		}
	})
	for i := range 20 {
		s := newScratchOn(t, device{Link: Link{Index: 1, MAC: ipam.MAC{2, 0, 0, 0, 0, 7}}})
		kind, err := s.redirect(1, mirred(), classifiers())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.up(); err != nil {
			t.Fatal(err)
		}
		frame := make([]byte, virtioHeader+60)
		// An IPv4 packet, whose source says which CPU it becomes.
		frame[virtioHeader+12], frame[virtioHeader+14], frame[virtioHeader+29] = 8, 0x45, byte(i)
		if _, err := unix.Write(s.fd, frame); err != nil {
			t.Fatal(err)
		}
		if err := s.taken(t.Context(), kind); err != nil {
			t.Fatal(err)
		}
		if n, err := s.redirected(kind); n != 1 || err != nil {
			t.Errorf("%d packets were handed over, error %v", n, err)
		}
	}
}

func TestTakenGivesUp(t *testing.T) {
	s := newScratchOn(t, device{Link: Link{Index: 1, MAC: ipam.MAC{2, 0, 0, 0, 0, 7}}})
	kind, err := s.redirect(1, mirred(), classifiers())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.taken(t.Context(), kind); err == nil {
		t.Error("a frame that was never written was handed over")
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := s.taken(ended, kind); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

// The request is what tc sends for "filter add dev L parent ffff: protocol all prio 1
// matchall action mirred ingress redirect dev L2", which this kernel has not.
func TestNewFilterByMatchall(t *testing.T) {
	payload := newFilter(7, 9, classifiers()[0], mirred()).Payload()
	if link, parent, info := netlink.Uint32(payload, 4), netlink.Uint32(payload, 12), netlink.Uint32(payload, 16); link != 7 || parent != 0xffff0000 || info != 0x10300 {
		t.Errorf("link %d, parent %#x, info %#x", link, parent, info)
	}
	attributes := payload[tcmsgSize:]
	if kind := string(netlink.Text(nested(attributes, unix.TCA_KIND))); kind != "matchall" {
		t.Errorf("kind is %q", kind)
	}
	act := nested(attributes, unix.TCA_OPTIONS, matchallAct, 1)
	if kind := string(netlink.Text(nested(act, actKind))); kind != "mirred" {
		t.Errorf("action is %q", kind)
	}
	parms := nested(act, actOptions, mirredParms)
	if len(parms) != 28 || netlink.Uint32(parms, 8) != 4 || netlink.Uint32(parms, 20) != 3 || netlink.Uint32(parms, 24) != 9 {
		t.Errorf("parameters are %v", parms)
	}
}

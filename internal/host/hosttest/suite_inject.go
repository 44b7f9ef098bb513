package hosttest

import (
	"context"
	"net/netip"
	"strings"

	"zwrm/internal/host"
)

// inject has no link, one that is down, and no frame.
func (s *suite) inject() {
	ctx, frame := s.t.Context(), make([]byte, 60)
	s.must(s.CreateTAP(ctx, s.tap(1)))
	s.must(s.SetUp(ctx, false, "zvm1"))
	s.refused(s.Inject(ctx, "zvm9", frame), host.ErrNoLink, "zvm9")
	s.refused(s.Inject(ctx, "zvm1", frame), host.ErrNoCarrier, "zvm1")
	if err := s.Inject(ctx, "zvm1", frame[:13]); err == nil || !strings.Contains(err.Error(), "13 bytes") {
		s.t.Errorf("error is %v", err)
	}
	ended, end := context.WithCancel(ctx)
	end()
	s.refused(s.Inject(ended, "zvm1", frame), context.Canceled, "zvm1")
	links, err := s.Links(ctx)
	s.must(err)
	for _, l := range links {
		if l.Name != "lo" && l.Name != "zvm1" {
			s.t.Errorf("link %q is left", l.Name)
		}
	}
}

func (s *suite) send() {
	ctx, packet := s.t.Context(), []byte{0: 0x45, 9: 253, 19: 0} // 253 is for experiments (RFC 3692)
	to := func(dest netip.Addr) []byte { return append(packet[:16:16], dest.AsSlice()...) }
	s.must(s.CreateTAP(ctx, s.tap(1)))
	s.must(s.Send(ctx, to(s.layout().Gateway(1))))
	for _, test := range []struct {
		packet []byte
		says   string
	}{
		{to(addr("198.51.100.9")), "to 198.51.100.9: network is unreachable"},
		{packet[:19], "19 bytes"},
		{append([]byte{0x60}, packet[1:]...), "20 bytes"},
	} {
		if err := s.Send(ctx, test.packet); err == nil || !strings.Contains(err.Error(), test.says) {
			s.t.Errorf("error is %v, want one that says %q", err, test.says)
		}
	}
	ended, end := context.WithCancel(ctx)
	end()
	s.refused(s.Send(ended, to(s.layout().Gateway(1))), context.Canceled, "172.16.0.5")
}

package trace_test

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"zwrm/internal/firewall/trace"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

func TestFrame(t *testing.T) {
	const ethernet = "025afffffffe 025aac100006 0800"
	for _, test := range []struct {
		service model.Service
		want    string // IPv4 header; what is behind it
	}{
		{model.Service{}, `4500 001c 1234 4000 40 01 d07c ac100006 ac10000a
			08 00 3533 c2cb 0001`},
		{udp(53), `4500 001c 1234 4000 40 11 d06c ac100006 ac10000a
			c2cb 0035 0008 e4ac`},
		{tcp(443), `4500 0028 1234 4000 40 06 d06b ac100006 ac10000a
			c2cb 01bb 12340000 00000000 50 02 faf0 8606 0000`},
	} {
		packet := trace.Packet{Source: netip.MustParseAddr("172.16.0.6"), Dest: netip.MustParseAddr("172.16.0.10"), Service: test.service, Port: 0xc2cb, ID: 0x1234}
		want, err := hex.DecodeString(strings.Join(strings.Fields(ethernet+test.want), ""))
		if err != nil {
			t.Fatal(err)
		}
		got := packet.Frame(ipam.MAC{0x02, 0x5a, 172, 16, 0, 6}, ipam.GatewayMAC())
		if !bytes.Equal(got, want) {
			t.Errorf("%s: frame is\n%x, want\n%x", test.service, got, want)
		}
		if !bytes.Equal(packet.Bytes(), got[14:]) {
			t.Errorf("%s: packet is\n%x, and its frame\n%x", test.service, packet.Bytes(), got)
		}
	}
}

// In UDP a checksum of 0 says that there is none, so what comes to 0 is written as its
// other zero (RFC 768).
func TestFrameWithChecksumZero(t *testing.T) {
	packet := trace.Packet{Source: netip.MustParseAddr("172.16.0.6"), Dest: netip.MustParseAddr("172.16.0.10"), Service: udp(53), Port: 0xa778, ID: 1}
	if sum := packet.Bytes()[26:28]; !bytes.Equal(sum, []byte{0xff, 0xff}) {
		t.Errorf("checksum is %x", sum)
	}
}

// Two packets between the same ends differ, and none is one that the kernel changes.
func TestNewPacket(t *testing.T) {
	source, dest := netip.MustParseAddr("172.16.0.6"), netip.MustParseAddr("172.16.0.10")
	seen := map[trace.Packet]bool{}
	for range 1000 {
		p := trace.NewPacket(source, dest, tcp(80))
		if p.ID == 0 || p.Port < 49152 || p.Source != source || p.Dest != dest || p.Service != tcp(80) {
			t.Fatalf("packet is %+v", p)
		}
		seen[p] = true
	}
	if len(seen) < 990 {
		t.Errorf("%d of 1000 packets differ", len(seen))
	}
}

// The kernel finds every checksum right.
func TestChecksums(t *testing.T) {
	w := newWorld(t)
	run(t, `table inet probe {
		chain tracked {
			type filter hook prerouting priority 0
			iifname "zvm1" ct state new counter comment "right"
			iifname "zvm1" ct state invalid counter comment "wrong"
		}
	}`, "nft", "-f", "-")
	for _, service := range []model.Service{{}, udp(53), tcp(443)} {
		for range 20 {
			packet := trace.NewPacket(w.layout.Guest(1), w.layout.Guest(2), service)
			if err := w.inject(t.Context(), packet); err != nil {
				t.Fatal(err)
			}
		}
	}
	rules := run(t, "", "nft", "list", "table", "inet", "probe")
	if !strings.Contains(rules, `ct state new counter packets 60 `) || !strings.Contains(rules, `ct state invalid counter packets 0 `) {
		t.Errorf("the rules are\n%s", rules)
	}
}

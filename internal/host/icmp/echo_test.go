package icmp

import (
	"context"
	"errors"
	"net/netip"
	"testing"
)

func TestRequest(t *testing.T) {
	packet := request(0x1234, 0x5678)
	// RFC 1071: with its checksum in place, the sum of a packet is all ones.
	if sum := checksum(packet); sum != 0 {
		t.Errorf("checksum of the packet is %#x", sum)
	}
	want := [8]byte{8, 0, 0x8f, 0x53, 0x12, 0x34, 0x56, 0x78}
	if [8]byte(packet) != want {
		t.Errorf("packet is % x, want % x", packet, want)
	}
}

func TestChecksumCarries(t *testing.T) {
	// The example of RFC 1071 section 3: the sum is ddf2.
	if sum := checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); sum != ^uint16(0xddf2) {
		t.Errorf("checksum is %#x", sum)
	}
}

func TestEchoGivenUp(t *testing.T) {
	why := errors.New("nobody waits")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := Echo(ctx, netip.MustParseAddr("192.0.2.1")); !errors.Is(err, why) {
		t.Errorf("error is %v", err)
	}
}

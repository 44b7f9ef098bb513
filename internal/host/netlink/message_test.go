package netlink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// attributeFor is one attribute as it is read back.
type attributeFor struct {
	kind  uint16
	value string
}

func collect(b []byte) []attributeFor {
	var got []attributeFor
	for kind, value := range Attributes(b) {
		got = append(got, attributeFor{kind, string(value)})
	}
	return got
}

func TestRequest(t *testing.T) {
	r := NewLink(unix.RTM_SETLINK, unix.NLM_F_EXCL, 7, unix.IFF_UP, unix.IFF_UP)
	r.Text(unix.IFLA_IFNAME, "zvm17")
	r.Uint32(unix.IFLA_GROUP, 0x5a000001)
	r.Nest(unix.IFLA_LINKINFO, func() { r.Bytes(unix.IFLA_INFO_KIND, []byte("tun")) })
	sealed := r.seal(99, unix.NLM_F_ACK)

	var seen []message
	for m := range messages(sealed) {
		seen = append(seen, m)
	}
	if len(seen) != 1 {
		t.Fatalf("%d messages, want 1", len(seen))
	}
	m := seen[0]
	if m.kind != unix.RTM_SETLINK || m.flags != unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_EXCL || m.seq != 99 {
		t.Errorf("header is %+v", m)
	}
	if index, flags, mask := Uint32(m.payload, 4), Uint32(m.payload, 8), Uint32(m.payload, 12); index != 7 || flags != unix.IFF_UP || mask != unix.IFF_UP {
		t.Errorf("index %d, flags %x, mask %x", index, flags, mask)
	}
	got := collect(m.payload[unix.SizeofIfInfomsg:])
	group := string(binary.NativeEndian.AppendUint32(nil, 0x5a000001))
	want := []attributeFor{{unix.IFLA_IFNAME, "zvm17\x00"}, {unix.IFLA_GROUP, group}}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2].kind != unix.IFLA_LINKINFO {
		t.Fatalf("attributes are %v", got)
	}
	inner := collect([]byte(got[2].value))
	if len(inner) != 1 || inner[0] != (attributeFor{unix.IFLA_INFO_KIND, "tun"}) {
		t.Errorf("nested attributes are %v", inner)
	}
}

func TestNewAddress(t *testing.T) {
	r := NewAddress(unix.RTM_NEWADDR, 0, 7, netip.MustParsePrefix("172.16.0.1/30"))
	payload := r.seal(1, 0)[unix.SizeofNlMsghdr:]
	if payload[0] != unix.AF_INET || payload[1] != 30 || Uint32(payload, 4) != 7 {
		t.Errorf("fixed part is %v", payload[:unix.SizeofIfAddrmsg])
	}
	for _, a := range collect(payload[unix.SizeofIfAddrmsg:]) {
		if a.value != "\xac\x10\x00\x01" {
			t.Errorf("attribute %d is %q", a.kind, a.value)
		}
	}
}

func TestOutcome(t *testing.T) {
	errno := func(n unix.Errno) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(-int32(n))) }
	words := NewRequest(0, 0, nil)
	words.buf = words.buf[:0]
	words.Text(unix.NLMSGERR_ATTR_MSG, "mtu greater than device maximum")
	withWords := append(append(errno(unix.EINVAL), make([]byte, unix.SizeofNlMsghdr)...), words.buf...)
	tests := []struct {
		name string
		m    message
		want error
		text string
	}{
		{"done", message{kind: unix.NLMSG_ERROR, payload: errno(0)}, nil, ""},
		{"end of a list", message{kind: unix.NLMSG_DONE}, nil, ""},
		{"refused", message{kind: unix.NLMSG_ERROR, payload: errno(unix.ENODEV)}, unix.ENODEV, "no such device"},
		{"list refused", message{kind: unix.NLMSG_DONE, payload: errno(unix.EPERM)}, unix.EPERM, "operation not permitted"},
		{"with words", message{kind: unix.NLMSG_ERROR, flags: unix.NLM_F_ACK_TLVS, payload: withWords}, unix.EINVAL,
			"invalid argument (mtu greater than device maximum)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := test.m.outcome()
			if !errors.Is(err, test.want) || err != nil && err.Error() != test.text {
				t.Errorf("outcome is %v, want %v", err, test.text)
			}
		})
	}
}

// What is received is cut into parts that lie within it, whatever it is.
func FuzzMessages(f *testing.F) {
	f.Add(NewLink(unix.RTM_SETLINK, 0, 7, 0, 0).seal(1, 0))
	f.Add([]byte{16, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(bytes.Repeat([]byte{4, 0}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for m := range messages(b) {
			total += unix.SizeofNlMsghdr + len(m.payload)
			_ = m.outcome()
			for _, value := range Attributes(m.payload) {
				Uint32(value, 0)
				Text(value)
			}
		}
		if total > len(b) {
			t.Errorf("%d bytes were read of %d", total, len(b))
		}
	})
}

package host_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"zwrm/internal/model"
)

// ioctl makes a request with a pointer.
func ioctl(t *testing.T, fd int, request uint, value unsafe.Pointer) {
	t.Helper()
	if _, _, err := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(value)); err != 0 {
		t.Fatal(err)
	}
}

// hears reports whether a VMM hears the host look for its guest, within a time.
func hears(t *testing.T, fd int, guest netip.Addr, within time.Duration) bool {
	t.Helper()
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(guest, 9)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for start := time.Now(); time.Since(start) < within; {
		// Refused once the kernel has given up looking; the next one has it look again.
		_, _ = conn.Write([]byte("who are you"))
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 50)
		if err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		if n > 0 {
			return true
		}
	}
	return false
}

// TestRecycleTakesBackWhatAVMMSet: the filter of one VMM drops nothing of the next.
func TestRecycleTakesBackWhatAVMMSet(t *testing.T) {
	k, _ := open(t)
	ctx, tap := context.Background(), tap(3)
	if err := k.CreateTAP(ctx, tap); err != nil {
		t.Fatal(err)
	}
	guest := tap.Address.Addr().Next()
	const flags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	fd, err := openTAP(tap.Name, flags)
	if err != nil {
		t.Fatal(err)
	}
	only := struct { // struct tun_filter of linux/if_tun.h
		flags, count uint16
		address      [6]byte
	}{count: 1, address: [6]byte{2, 0, 0, 0, 0, 7}}
	ioctl(t, fd, unix.TUNSETTXFILTER, unsafe.Pointer(&only))
	length, little := int32(12), int32(1)
	ioctl(t, fd, unix.TUNSETVNETHDRSZ, unsafe.Pointer(&length))
	ioctl(t, fd, unix.TUNSETVNETLE, unsafe.Pointer(&little))
	_ = unix.Close(fd)

	look := func(within time.Duration) (heard bool, length, little int32) {
		t.Helper()
		fd, err := openTAP(tap.Name, flags)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		ioctl(t, fd, unix.TUNGETVNETHDRSZ, unsafe.Pointer(&length))
		ioctl(t, fd, unix.TUNGETVNETLE, unsafe.Pointer(&little))
		return hears(t, fd, guest, within), length, little
	}
	if heard, length, little := look(500 * time.Millisecond); heard || length != 12 || little != 1 {
		t.Fatalf("without Recycle: heard %t, headers of %d bytes, little %d: this proves nothing", heard, length, little)
	}
	if names, err := k.Recycle(ctx, "spare", tap.Name); err != nil || len(names) != 1 {
		t.Fatalf("recycled %v, %v", names, err)
	}
	if heard, length, little := look(10 * time.Second); !heard || length != 10 || little != 0 {
		t.Errorf("heard %t, headers of %d bytes, little %d", heard, length, little)
	}
	if err := k.SetGroup(ctx, model.GroupUnassigned, tap.Name); err != nil {
		t.Fatal(err)
	}
}

package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/nstest"
	"zwrm/internal/ipam"
	"zwrm/internal/vmm"
)

// long is more than any of these tests takes; it only ends a test that hangs.
const long = 2 * time.Minute

// TestMain runs the tests in a network namespace of their own, where their TAPs
// are. The test binary also stands in for QEMU: see fakeQEMU.
func TestMain(m *testing.M) {
	if mode := os.Getenv(fakeMode); mode != "" {
		os.Exit(fakeQEMU(mode))
	}
	nstest.Main(m)
}

// testUID is the first of the uids that VMs of these tests run as.
const testUID = 1879048192

// open is Open, once for all tests: the trial run takes a second where KVM is not
// to be used.
var open = sync.OnceValues(func() (*Driver, error) {
	return Open(context.Background(), testUID, slog.New(slog.DiscardHandler), nil)
})

func openDriver(t *testing.T) *Driver {
	t.Helper()
	d, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// idleText is what the idle kernel writes on its console.
const idleText = "idle here\n"

// idleSpec is a VM with a TAP and a kernel of some ten instructions, which writes
// idleText and waits for ever.
func idleSpec(t *testing.T, slot ipam.Slot) vmm.Spec {
	t.Helper()
	dir := t.TempDir()
	spec := vmm.Spec{
		Name:      "idle-0",
		CPUs:      1,
		MemoryMiB: 32,
		Kernel:    filepath.Join(dir, "kernel"),
		TAP:       slot.TAP(),
		GuestMAC:  ipam.MAC{0x02, 0x5a, 172, 16, 0, byte(4*slot + 2)},
		Dir:       filepath.Join(dir, "vm"),
		UID:       testUID + uint32(slot),
	}
	kernel := idleAMD64()
	if runtime.GOARCH == "arm64" {
		kernel = idleARM64()
	}
	writeFile(t, spec.Kernel, kernel)
	makeTAP(t, spec.TAP)
	return spec
}

// floodSpec is idleSpec with a kernel that writes idleText again and again, as fast as
// it can.
func floodSpec(t *testing.T, slot ipam.Slot) vmm.Spec {
	t.Helper()
	spec := idleSpec(t, slot)
	kernel, err := os.ReadFile(spec.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	n := len(idleText)
	if runtime.GOARCH == "arm64" {
		end := 64 + 4*(1+2*n)
		binary.LittleEndian.PutUint32(kernel[end:], 0x1400_0000|uint32(-2*n)&0x3ff_ffff) // b to the first character
	} else {
		end := 0x268 + 4 + 3*n
		copy(kernel[end:], []byte{0xeb, byte(-(3*n + 2))}) // jmp to the first character
	}
	writeFile(t, spec.Kernel, kernel)
	return spec
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

// idleAMD64 is a kernel image that does not get past its real-mode part
// (Linux Documentation/arch/x86/boot.rst).
func idleAMD64() []byte {
	image := make([]byte, 4*512)
	image[0x1f1] = 1                                          // setup_sects
	binary.LittleEndian.PutUint16(image[0x1fe:], 0xaa55)      // boot_flag
	copy(image[0x200:], []byte{0xeb, 0x66})                   // jump to 0x268
	copy(image[0x202:], "HdrS")                               //
	binary.LittleEndian.PutUint16(image[0x206:], 0x0203)      // version
	image[0x211] = 1                                          // loadflags: LOADED_HIGH
	binary.LittleEndian.PutUint32(image[0x22c:], 0x37ff_ffff) // initrd_addr_max
	code := append([]byte{0xfa}, 0xba, 0xf8, 0x03)            // cli; mov $0x3f8, %dx
	for _, c := range []byte(idleText) {
		code = append(code, 0xb0, c, 0xee) // mov $c, %al; out %al, (%dx)
	}
	copy(image[0x268:], append(code, 0xf4, 0xeb, 0xfd)) // hlt; jmp to it
	return image
}

// idleARM64 is a kernel image (Linux Documentation/arch/arm64/booting.rst).
func idleARM64() []byte {
	header := make([]byte, 64)
	binary.LittleEndian.PutUint32(header[0:], 0x1400_0010) // code0: b .+64
	binary.LittleEndian.PutUint64(header[16:], 4096)       // image_size
	copy(header[56:], "ARM\x64")
	code := []uint32{0xd2a1_2000} // movz x0, #0x900, lsl #16: the board's serial port
	for _, c := range idleText {
		code = append(code, 0x5280_0001|uint32(c)<<5, 0xb900_0001) // movz w1, #c; str w1, [x0]
	}
	code = append(code, 0xd503_207f, 0x17ff_ffff) // wfi; b .-4
	for _, instruction := range code {
		header = binary.LittleEndian.AppendUint32(header, instruction)
	}
	return append(header, make([]byte, 4096-len(header))...)
}

// makeTAP makes a TAP that stays until the test ends.
func makeTAP(t *testing.T, name string) {
	t.Helper()
	tap := openTAP(t, name)
	defer tap.Close()
	persist := func(on int) error {
		return ioctl(tap, func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, on) })
	}
	if err := persist(1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tap := openTAP(t, name)
		defer tap.Close()
		if err := ioctl(tap, func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 0) }); err != nil {
			t.Error(err)
		}
	})
}

// openTAP opens a TAP as QEMU does, for which nobody else may have it open.
func openTAP(t *testing.T, name string) *os.File {
	t.Helper()
	file, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = ioctl(file, func(fd int) error { return unix.IoctlIfreq(fd, unix.TUNSETIFF, request) })
	}
	if err != nil {
		file.Close()
		t.Fatalf("open TAP %q: %v", name, err)
	}
	return file
}

func ioctl(file *os.File, f func(fd int) error) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	return errors.Join(conn.Control(func(fd uintptr) { failed = f(int(fd)) }), failed)
}

// start runs a VM that is gone when the test is.
func start(t *testing.T, d *Driver, spec vmm.Spec) *vmm.Process {
	t.Helper()
	p, err := d.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(context.Background()); err != nil {
			t.Errorf("QEMU is left: %v", err)
		}
	})
	return p
}

// until is a writer that ends a context when it has seen a text.
type until struct {
	text string
	seen bytes.Buffer
	end  context.CancelFunc
}

func (u *until) Write(p []byte) (int, error) {
	u.seen.Write(p)
	if strings.Contains(u.seen.String(), u.text) {
		u.end()
	}
	return len(p), nil
}

// awaitConsole returns when the guest has written the text.
func awaitConsole(t *testing.T, dir, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	reader := &until{text: text, end: cancel}
	if err := vmm.NewConsole(dir).Copy(ctx, reader, true); err != nil {
		t.Fatal(err)
	}
	if seen := reader.seen.String(); !strings.Contains(seen, text) {
		t.Fatalf("the guest did not write %q, but\n%s", text, seen)
	}
}

func awaitDone(t *testing.T, p *vmm.Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(long):
		t.Fatalf("QEMU %d is still there", p.Identity().PID)
	}
}

// entries returns what is in a folder, or nothing when it is not there.
func entries(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range list {
		names = append(names, entry.Name())
	}
	return strings.Join(names, " ")
}

package powercut_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"zwrm/internal/client"
	"zwrm/test/powercut/disk"
	"zwrm/test/zwrmtest"
)

// workers is how many clients a machine has at once.
const workers = 3

// config is that of the zwrmd inside. nftables needs no programs there.
const config = `network.external_interface = "eth0"
network.firewall = "nftables"
network.bridge.enabled = true
`

// kit is what machines are made of.
type kit struct {
	dir    string // short, since it holds sockets
	initrd string
}

// newKit builds the initramfs of machines: zwrmd, its kernel modules, and the
// program that is all the rest.
func newKit(t *testing.T) kit {
	t.Helper()
	dir, err := os.MkdirTemp("", "zwrm")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	root := filepath.Join(dir, "root")
	for _, folder := range []string{"bin", "etc/zwrm", "lib/modules"} {
		must(t, os.MkdirAll(filepath.Join(root, folder), 0o755))
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(root, "init"), "zwrm/test/powercut/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	run(t, build)
	must(t, os.CopyFS(filepath.Join(root, "lib/modules"), os.DirFS(zwrmtest.Image(t, "host-modules"))))
	program, err := os.ReadFile(zwrmtest.Binary(t, "zwrmd"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "bin/zwrmd"), program, 0o755))
	for _, program := range []string{qemu(), "prlimit"} {
		must(t, os.Symlink("/init", filepath.Join(root, "bin", program)))
	}
	for name, text := range map[string]string{
		"etc/group":            "",
		"etc/zwrm/config.toml": config,
		"kernel":               "\x7fELF, as far as anybody looks",
	} {
		must(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o644))
	}
	k := kit{dir, filepath.Join(dir, "initrd")}
	// Not compressed: to unpack is what takes a guest in software long.
	pack := exec.Command("sh", "-c", `find . | cpio --quiet -o -H newc --owner=0:0 >"$0"`, k.initrd)
	pack.Dir = root
	run(t, pack)
	return k
}

// qemu returns the name of QEMU's program for this machine's own architecture.
func qemu() string {
	if runtime.GOARCH == "arm64" {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

// newDisk returns an empty ext4.
func (k kit) newDisk(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, 32<<20))
	run(t, exec.Command("mkfs.ext4", "-q", "-b", "4096", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0", path))
	content, err := os.ReadFile(path)
	must(t, err)
	return content
}

// machine is a VM with the power on.
type machine struct {
	disk    *disk.Disk
	clients []*client.Client // of zwrmd inside, one connection each
	control string           // path of the socket of what does things to the disk
	ctx     context.Context  // ends with the power

	listener net.Listener
	process  *exec.Cmd
	console  string
	ended    chan struct{}
}

// boot switches a machine on that has the content on its disk.
func (k kit) boot(t *testing.T, content []byte) *machine {
	t.Helper()
	dir, err := os.MkdirTemp(k.dir, "m")
	must(t, err)
	m := &machine{disk: disk.New(content), console: filepath.Join(dir, "console"), ended: make(chan struct{})}
	m.listener, err = net.Listen("unix", filepath.Join(dir, "disk"))
	must(t, err)
	go func() {
		if err := m.disk.Serve(m.listener); err != nil {
			t.Errorf("disk: %v", err)
		}
	}()
	board := []string{"-M", "q35"}
	if runtime.GOARCH == "arm64" {
		board = []string{"-M", "virt"}
	}
	args := append(board, "-accel", "tcg", "-cpu", "max", "-m", "256M", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", zwrmtest.Image(t, "kernel"), "-initrd", k.initrd,
		"-append", "console=ttyS0 console=ttyAMA0 reboot=t panic=-1 quiet no_timer_check",
		"-serial", "file:"+m.console,
		"-blockdev", "driver=nbd,node-name=disk,server.type=unix,server.path="+filepath.Join(dir, "disk"),
		"-device", "virtio-blk-pci,drive=disk,write-cache=on",
		"-device", "virtio-serial-pci")
	const controlPort = 9 // see guest/port.go
	for port := range workers {
		path := filepath.Join(dir, fmt.Sprint(port))
		args = append(args, serialPort(port+1, path)...)
		m.clients = append(m.clients, client.New(path))
	}
	m.control = filepath.Join(dir, "control")
	args = append(args, serialPort(controlPort, m.control)...)
	var end context.CancelFunc
	m.ctx, end = context.WithCancel(context.Background())
	go func() {
		defer end()
		select {
		case <-m.disk.Dead():
		case <-m.ended:
		}
	}()
	m.start(t, exec.Command(qemu(), args...))
	return m
}

// serialPort returns the options of a serial port that a Unix socket leads to.
func serialPort(number int, path string) []string {
	return []string{
		"-chardev", fmt.Sprintf("socket,id=port%d,path=%s,server=on,wait=off", number, path),
		"-device", fmt.Sprintf("virtserialport,chardev=port%d,nr=%d", number, number),
	}
}

// start starts QEMU, and ends it when the test ends or its process does.
func (m *machine) start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var said strings.Builder
	m.process, cmd.Stderr = cmd, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the signal is sent when the thread ends that started QEMU
		err := cmd.Start()
		started <- err
		if err == nil {
			err = cmd.Wait()
		}
		if said.Len() > 0 {
			t.Errorf("QEMU: %v: %s", err, said.String())
		}
		close(m.ended)
	}()
	must(t, <-started)
	for { // until QEMU has made its sockets
		if _, err := os.Stat(m.control); err == nil {
			break
		}
		must(t, m.alive())
		time.Sleep(5 * time.Millisecond)
	}
	t.Cleanup(func() {
		m.off()
		if console, err := os.ReadFile(m.console); t.Failed() && err == nil {
			t.Logf("console of the last start:\n%s", console)
		}
	})
}

// off takes the power away, and returns when all that ran is gone.
func (m *machine) off() {
	m.disk.Cut(0)
	_ = m.process.Process.Kill() // it may have ended by itself
	<-m.ended
	m.listener.Close()
	for _, c := range m.clients {
		c.Close()
	}
}

// alive returns an error when the machine has ended although it has power.
func (m *machine) alive() error {
	select {
	case <-m.disk.Dead():
		return nil
	case <-m.ended:
		console, err := os.ReadFile(m.console)
		return errors.Join(fmt.Errorf("the machine ended by itself:\n%s", console), err)
	default:
		return nil
	}
}

// run runs a program, which must succeed.
func run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

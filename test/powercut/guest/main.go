// Command guest is the first process of a VM that is itself a host of VMs: it runs
// the real zwrmd on a disk, and hands its API out on serial ports. Under the name of
// QEMU it stands in for the VMMs that zwrmd starts, since a VM inside a VM in
// software would take minutes to boot.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/guest"
)

const (
	device = "/dev/vda"
	state  = "/var/lib/zwrm"
	uplink = "eth0"
	socket = "/run/zwrm/zwrmd.sock"
)

func main() {
	switch name := filepath.Base(os.Args[0]); {
	case name == "prlimit":
		fmt.Fprintln(os.Stderr, prlimit(os.Args[1:]))
		os.Exit(1)
	case strings.HasPrefix(name, "qemu-system-"):
		os.Exit(vmm(os.Args[1:]))
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: this is the first process of a VM; it does not run elsewhere")
		os.Exit(1)
	}
	fmt.Println("guest:", run())
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // which ends QEMU
}

// run returns when zwrmd has ended, or why it was not started.
func run() error {
	if err := guest.MountAll(guest.Mounts()); err != nil {
		return err
	}
	if err := guest.LoadModules(guest.ModuleDir, modules()); err != nil {
		return err
	}
	if err := mountDisk(); err != nil {
		return err
	}
	if err := makeUplink(); err != nil {
		return err
	}
	daemon := exec.Command("/bin/zwrmd")
	daemon.Env = []string{"PATH=/bin"}
	daemon.Stdout, daemon.Stderr = os.Stdout, os.Stderr
	if err := daemon.Start(); err != nil {
		return err
	}
	ports, err := filepath.Glob("/dev/vport*")
	if err != nil {
		return err
	}
	for _, port := range ports {
		if strings.HasSuffix(port, controlPort) {
			go control(port)
		} else {
			go relay(port)
		}
	}
	return fmt.Errorf("zwrmd ended: %w", errors.Join(daemon.Wait(), errors.New(daemon.ProcessState.String())))
}

// mountDisk mounts the disk, which appears a moment after its driver was loaded.
func mountDisk() error {
	const within, pollEvery = 10 * time.Second, 5 * time.Millisecond
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	for end := time.Now().Add(within); ; time.Sleep(pollEvery) {
		err := unix.Mount(device, state, "ext4", 0, "")
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.ENOENT) || time.Now().After(end) {
			return fmt.Errorf("mount %q: %w", device, err)
		}
	}
}

// makeUplink makes an interface that leads nowhere.
func makeUplink() error {
	tun, err := openTAP(uplink)
	if err != nil {
		return err
	}
	if err := unix.IoctlSetInt(tun, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("keep %q: %w", uplink, err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	request, err := unix.NewIfreq(uplink)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bring %q up: %w", uplink, err)
	}
	return nil
}

// openTAP opens a TAP, and makes it when there is none.
func openTAP(name string) (int, error) {
	tun, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open TAP %q: %w", name, err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(tun, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(tun)
		return -1, fmt.Errorf("open TAP %q: %w", name, err)
	}
	return tun, nil
}

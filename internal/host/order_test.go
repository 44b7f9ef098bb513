package host_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"zwrm/internal/host"
	"zwrm/internal/host/netlink"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// Every state of a link that CreateTAP goes through is announced by the kernel.
// In none is the link up and not yet known to be closed, or up with the long
// queue that costs memory.
func TestCreateTAPClosesBeforeUp(t *testing.T) {
	kernel, _ := open(t)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		t.Fatal(err)
	}
	if err := kernel.CreateTAP(t.Context(), tap(1)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	for wasUp := false; ; {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			if !wasUp {
				t.Error("the link was never up")
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			if m.Header.Type == unix.RTM_NEWLINK && netlink.Uint32(m.Data, 8)&unix.IFF_UP != 0 {
				wasUp = true
				checkClosed(t, m.Data)
			}
		}
	}
}

func checkClosed(t *testing.T, link []byte) {
	t.Helper()
	for attribute, value := range netlink.Attributes(link[unix.SizeofIfInfomsg:]) {
		switch n := netlink.Uint32(value, 0); {
		case attribute == unix.IFLA_GROUP && model.Group(n) != model.GroupUnassigned:
			t.Errorf("it was up in group %s", model.Group(n))
		case attribute == unix.IFLA_TXQLEN && n != 256:
			t.Errorf("it was up with a queue of %d packets", n)
		}
	}
}

// makerEnv makes TestMaker be a process that makes TAPs until it is killed.
const makerEnv = "ZWRM_HOST_TEST_MAKER"

func TestMaker(t *testing.T) {
	if os.Getenv(makerEnv) == "" {
		return
	}
	kernel, err := host.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	for slot := ipam.Slot(0); ; slot++ {
		if err := kernel.CreateTAP(t.Context(), tap(slot)); err != nil {
			t.Fatal(err)
		}
		fmt.Println("made", slot)
	}
}

// A process that is killed while it makes a TAP leaves none that could be taken
// for somebody else's, or that another process cannot complete.
func TestKilledWhileMaking(t *testing.T) {
	kernel, _ := open(t)
	for run := range 10 {
		killAfter(t, "TestMaker", makerEnv, run+1)
		links, err := kernel.Links(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, l := range links {
			slot, ok := ipam.ParseTAP(l.Name)
			if !ok {
				continue
			}
			names = append(names, l.Name)
			if l.Kind != host.KindTAP || l.Group != model.GroupUnassigned {
				t.Errorf("%s is a %s in group %s", l.Name, l.Kind, l.Group)
			}
			if err := kernel.CreateTAP(t.Context(), tap(slot)); err != nil {
				t.Error(err)
			}
		}
		if len(names) < run {
			t.Errorf("%d links are left of %d that were made", len(names), run)
		}
		if err := kernel.DeleteLinks(t.Context(), names...); err != nil {
			t.Fatal(err)
		}
	}
}

// killAfter runs a test in a process of its own, which an environment variable tells
// it, and kills that somewhere behind the given number of things that it made.
func killAfter(t *testing.T, test, env string, made int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), env+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for seen := 0; seen < made && lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "made ") {
			seen++
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
}

// Command qemu stands in for QEMU: it ends as the trial run of zwrmd wants it, and
// else holds the TAP and says that its guest runs. The guest is one of package guest.
package main

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/test/crash/guest"
)

func main() {
	switch {
	case slices.Contains(os.Args, "-version"):
	case slices.Contains(os.Args, "-bios"): // the trial run
		if runtime.GOARCH == "amd64" {
			os.Exit(0x10*2 + 1)
		}
	default:
		if err := run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// run is a guest, until a signal ends the process.
func run() error {
	name, args := option("-name"), strings.Fields(option("-append"))
	fd, err := strconv.Atoi(value(strings.Split(option("-netdev"), ","), "fd="))
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return err
	}
	tap := os.NewFile(uintptr(fd), "tap")
	tell, err := net.Dial("unixgram", value(args, "crash.breaches="))
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", strings.TrimPrefix(strings.Split(option("-qmp"), ",")[0], "unix:"))
	if err != nil {
		return err
	}
	go serve(listener)
	address, _, _ := strings.Cut(value(args, "ip="), ":")
	own := netip.MustParseAddr(address)
	go endWith(tell)
	g := &guest.Guest{App: name[:strings.LastIndex(name, "-")], Address: own, Breach: func(app string) {
		_, _ = fmt.Fprintf(tell, "VM %q was reached by app %q", name, app)
	}}
	targets := []netip.Addr{own.Prev()} // the host
	for target := range strings.SplitSeq(value(args, "crash.targets="), ",") {
		targets = append(targets, netip.MustParseAddr(target))
	}
	g.Aim(targets...)
	g.Run(tap)
	return nil
}

// endWith ends the process when the test has ended, which is at the other end.
func endWith(tell net.Conn) {
	for {
		if _, err := tell.Write(nil); err != nil {
			os.Exit(1)
		}
		time.Sleep(time.Second)
	}
}

// serve speaks QMP: the guest runs.
func serve(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		fmt.Fprintln(conn, `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": []}}`)
		lines := bufio.NewScanner(conn)
		for lines.Scan() {
			answer := `{"return": {}}`
			if strings.Contains(lines.Text(), "query-status") {
				answer = `{"return": {"status": "running"}}`
			}
			fmt.Fprintln(conn, answer)
		}
		conn.Close()
	}
}

// option returns the argument behind another.
func option(name string) string { return os.Args[slices.Index(os.Args, name)+1] }

// value returns what is behind a prefix in the first word that has it.
func value(words []string, prefix string) string {
	for _, word := range words {
		if text, ok := strings.CutPrefix(word, prefix); ok {
			return text
		}
	}
	return ""
}

package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// prlimit becomes the program that it is to run, without the limits. It returns only an
// error.
func prlimit(args []string) error {
	program := args[slices.Index(args, "--")+1:]
	return syscall.Exec(program[0], program, os.Environ())
}

// vmm is what zwrmd takes for QEMU: it passes the trial run, holds the TAP that it
// inherits, writes a line on the console, and says on the control socket that its guest
// runs.
func vmm(args []string) int {
	if slices.Contains(args, "-version") {
		return 0
	}
	if slices.Contains(args, "-bios") { // the trial (internal/vmm/qemu/trial.go)
		if runtime.GOARCH == "amd64" {
			return 0x10*2 + 1
		}
		return 0
	}
	fmt.Fprintln(os.Stderr, serveGuest(option(args, "unix:")))
	return 1
}

// option returns what follows a text in the arguments, up to a comma.
func option(args []string, prefix string) string {
	_, rest, _ := strings.Cut(strings.Join(args, "\n"), prefix)
	value, _, _ := strings.Cut(rest, ",")
	return value
}

// serveGuest returns only an error: it is zwrmd that ends a VMM.
func serveGuest(control string) error {
	listener, err := net.Listen("unix", control)
	if err != nil {
		return err
	}
	console, err := os.OpenFile("console.log", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	fmt.Fprintln(console, "guest runs")
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go talk(conn)
	}
}

// talk is the other side of internal/vmm/qemu/qmp.go.
func talk(conn net.Conn) {
	defer conn.Close()
	fmt.Fprintln(conn, `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": []}}`)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		answer := `{"return": {}}`
		if strings.Contains(lines.Text(), "query-status") {
			answer = `{"return": {"status": "running"}}`
		}
		fmt.Fprintln(conn, answer)
	}
}

package qemu

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"zwrm/internal/host/nstest"
)

// fakeMode is the environment variable by which the test binary stands in for
// QEMU: it listens on the control socket and misbehaves as told.
const fakeMode = "ZWRM_FAKE_QEMU"

// fakeReady names a file that a silent one writes its pid to, once it is asked.
const fakeReady = "ZWRM_FAKE_READY"

const greeting = `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": []}}` + "\n"

// fakeQEMU serves one client on the control socket in the working directory.
func fakeQEMU(mode string) int {
	listener, err := net.Listen("unix", controlSocket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	conn, err := listener.Accept()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	switch mode {
	case "talks nonsense":
		fmt.Fprintln(conn, "SSH-2.0-OpenSSH")
	case "floods":
		chunk := bytes.Repeat([]byte("x"), 1<<20)
		for err == nil {
			_, err = conn.Write(chunk)
		}
	case "does not run":
		fmt.Fprint(conn, greeting, `{"return": {}}`, "\n", `{"return": {"status": "internal-error"}}`, "\n")
	case "is silent":
		if err := os.WriteFile(os.Getenv(fakeReady), fmt.Append(nil, os.Getpid()), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	case "dies":
		fmt.Fprint(conn, greeting)
		fmt.Fprintln(os.Stderr, "out of luck")
		return 5
	}
	time.Sleep(long) // whoever started it ends it
	return 0
}

// fakeDriver returns a driver whose QEMU is the test binary in the given mode.
func fakeDriver(t *testing.T, mode string) *Driver {
	t.Helper()
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	self := filepath.Join(nstest.TempDir(t), "self") // go test has its own in a folder that only root enters
	writeFile(t, self, binary)
	return scriptDriver(t, fmt.Sprintf("%s='%s' exec '%s'", fakeMode, mode, self))
}

// scriptDriver returns a driver whose QEMU is a shell script.
func scriptDriver(t *testing.T, script string) *Driver {
	t.Helper()
	d := *openDriver(t)
	d.program = filepath.Join(nstest.TempDir(t), "qemu")
	writeFile(t, d.program, []byte("#!/bin/sh\n"+script+"\n"))
	return &d
}

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	controlPort = "p9" // end of the name of the port that control listens on
	pollEvery   = 5 * time.Millisecond
)

// relay connects whoever comes by a serial port with zwrmd, one after the other. A
// port reads as ended while nobody is at its other end.
func relay(name string) {
	port, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		fmt.Println("guest:", err)
		return
	}
	buf := make([]byte, 64<<10)
	var conn net.Conn
	for {
		n, err := port.Read(buf)
		switch {
		case n > 0:
			if conn == nil {
				conn = dial()
				go func(conn net.Conn) { _, _ = io.Copy(port, conn) }(conn)
			}
			_, _ = conn.Write(buf[:n]) // zwrmd may have hung up; the client sees it
		case err == nil || errors.Is(err, io.EOF):
			if conn != nil {
				conn.Close()
				conn = nil
			}
			time.Sleep(pollEvery)
		default:
			fmt.Println("guest:", err)
			return
		}
	}
}

// dial connects to zwrmd, which may still be starting.
func dial() net.Conn {
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			return conn
		}
		time.Sleep(pollEvery)
	}
}

// control does what it is told, a line at a time, and answers "ok" or what went wrong.
func control(name string) {
	port, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		fmt.Println("guest:", err)
		return
	}
	for lines := bufio.NewReader(port); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			time.Sleep(pollEvery)
			continue
		}
		answer := "ok"
		if err := command(strings.TrimSpace(line)); err != nil {
			answer = err.Error()
		}
		fmt.Fprintln(port, answer)
	}
}

// ballast is the file that fills the disk.
const ballast = state + "/ballast"

func command(line string) error {
	switch word, rest, _ := strings.Cut(line, " "); word {
	case "kill":
		pid, err := strconv.Atoi(rest)
		if err != nil {
			return err
		}
		return unix.Kill(pid, unix.SIGKILL)
	case "fill":
		return fill()
	case "free":
		return os.Remove(ballast)
	case "read-only":
		// The emergency remount, which asks no writer's leave, as errors=remount-ro of a
		// disk that fails does not. It is done behind the write.
		if err := os.WriteFile("/proc/sysrq-trigger", []byte("u"), 0); err != nil {
			return err
		}
		return awaitReadOnly()
	case "read-write":
		return unix.Mount("", state, "", unix.MS_REMOUNT, "")
	default:
		return fmt.Errorf("unknown command %q", line)
	}
}

// fill writes until the disk has no room for a byte.
func fill() error {
	file, err := os.OpenFile(ballast, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	for chunk := bytes.Repeat([]byte("x"), 1<<20); len(chunk) > 0; {
		_, err := file.Write(chunk)
		if errors.Is(err, unix.ENOSPC) {
			chunk = chunk[:len(chunk)/2]
		} else if err != nil {
			return err
		}
	}
	return file.Sync()
}

func awaitReadOnly() error {
	const within = 10 * time.Second
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(pollEvery) {
		var fs unix.Statfs_t
		if err := unix.Statfs(state, &fs); err != nil {
			return err
		}
		if fs.Flags&unix.ST_RDONLY != 0 {
			return nil
		}
	}
	return fmt.Errorf("disk can still be written after %s", within)
}

package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// The limits of what a QEMU may say to one command. A guest that broke into its
// QEMU can say anything.
const (
	maxLine   = 64 << 10 // bytes; the greeting has about 150, a status 60
	maxEvents = 100      // events between a command and its answer
)

// monitor is a connection of the QEMU Machine Protocol: one JSON object per
// line, each way (docs/interop/qmp-spec.txt of QEMU).
type monitor struct {
	conn   net.Conn
	lines  *bufio.Scanner
	unbind func() bool // from the context
}

// message is every kind of line that QEMU sends. Exactly one of the fields is set.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	Return   json.RawMessage `json:"return"`
	Event    string          `json:"event"`
	Error    *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// openMonitor takes the greeting and leaves the negotiation mode. It owns conn.
// Everything on the connection ends with ctx.
func openMonitor(ctx context.Context, conn net.Conn) (*monitor, error) {
	m := &monitor{conn: conn, lines: bufio.NewScanner(conn)}
	m.lines.Buffer(make([]byte, 0, 4<<10), maxLine)
	m.unbind = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	hello, err := m.read()
	if err == nil && hello.Greeting == nil {
		err = errors.New("it does not greet")
	}
	if err == nil {
		_, err = m.execute("qmp_capabilities")
	}
	if err != nil {
		m.close()
		return nil, fmt.Errorf("open QEMU's control socket: %w", err)
	}
	return m, nil
}

// status returns the run state of the guest, such as "running" (RunState in
// qapi/run-state.json of QEMU).
func (m *monitor) status() (string, error) {
	answer, err := m.execute("query-status")
	if err != nil {
		return "", err
	}
	var state struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(answer, &state); err != nil {
		return "", fmt.Errorf("read QEMU's answer to \"query-status\": %w", err)
	}
	return state.Status, nil
}

// execute runs a command without arguments.
func (m *monitor) execute(command string) (json.RawMessage, error) {
	request, err := json.Marshal(map[string]string{"execute": command})
	if err != nil {
		return nil, err
	}
	if _, err := m.conn.Write(append(request, '\n')); err != nil {
		return nil, fmt.Errorf("send %q to QEMU: %w", command, err)
	}
	for range maxEvents {
		answer, err := m.read()
		switch {
		case err != nil:
			return nil, fmt.Errorf("read QEMU's answer to %q: %w", command, err)
		case answer.Error != nil:
			return nil, fmt.Errorf("QEMU refuses %q: %.200q (%.40q)", command, answer.Error.Desc, answer.Error.Class)
		case answer.Return != nil:
			return answer.Return, nil
		case answer.Event == "":
			return nil, fmt.Errorf("read QEMU's answer to %q: it is none", command)
		}
	}
	return nil, fmt.Errorf("read QEMU's answer to %q: only events came", command)
}

func (m *monitor) read() (message, error) {
	var line message
	if !m.lines.Scan() {
		if err := m.lines.Err(); err != nil {
			return line, err
		}
		return line, io.ErrUnexpectedEOF
	}
	err := json.Unmarshal(m.lines.Bytes(), &line)
	return line, err
}

func (m *monitor) close() {
	m.unbind()
	m.conn.Close()
}

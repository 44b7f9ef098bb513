package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// answerWithin bounds one answer of a guest. The workload itself gives up after 3 s.
const answerWithin = 30 * time.Second

// dial connects the host with a guest.
func (w *world) dial(ctx context.Context, t *testing.T, address string) (conn net.Conn, err error) {
	t.Helper()
	w.Do(t, func() { conn, err = new(net.Dialer).DialContext(ctx, "tcp4", address) })
	return conn, err
}

// ask asks a guest's workload (scripts/guest) something once, as in
// "ping?172.16.0.2".
func (w *world) ask(t *testing.T, vm wire.VM, question string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), answerWithin)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+vm.GuestIP+"/cgi-bin/"+question, nil)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return w.dial(ctx, t, address)
		},
	}
	resp, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %s: %s", resp.Status, text)
	}
	return strings.TrimSpace(string(text)), nil
}

// answer asks until the guest has an answer: its workload begins a moment after its
// network.
func (w *world) answer(t *testing.T, vm wire.VM, question string) string {
	t.Helper()
	var text string
	eventually(t, vm.Name+": "+question, func() (err error) {
		text, err = w.ask(t, vm, question)
		return err
	})
	return text
}

// reaches waits until the guest answers a question with "yes".
func (w *world) reaches(t *testing.T, vm wire.VM, question string) {
	t.Helper()
	w.says(t, vm, question, "yes")
}

// cutOff reports an error unless the guest answers a question with "no".
func (w *world) cutOff(t *testing.T, vm wire.VM, question string) {
	t.Helper()
	w.says(t, vm, question, "no")
}

// says reports an error unless the guest has the wanted answer. Only a "no" is taken
// at once: what must work may take several tries, and what must not may not work once.
func (w *world) says(t *testing.T, vm wire.VM, question, want string) {
	t.Helper()
	var got string
	err := poll(func() (err error) {
		if got, err = w.ask(t, vm, question); err == nil && got != want && want != "no" {
			err = fmt.Errorf("it says %q, want %q", got, want)
		}
		return err
	})
	if err == nil && got != want {
		err = fmt.Errorf("it says %q, want %q", got, want)
	}
	if err != nil {
		t.Errorf("%s: %s: %v", vm.Name, question, err)
	}
}

// online waits until the guest reaches the internet, which must see the host's
// address.
func (w *world) online(t *testing.T, vm wire.VM) {
	t.Helper()
	w.says(t, vm, "get?"+zwrmtest.OutsideAddress+":80", zwrmtest.HostAddress)
}

// matrix has every guest try every other, by ping and by TCP, and compares who
// reaches whom with what is wanted.
func (w *world) matrix(t *testing.T, guests []wire.VM, want func(from, to wire.VM) bool) {
	t.Helper()
	var tries sync.WaitGroup
	for _, from := range guests {
		for _, to := range guests {
			if from.Name == to.Name {
				continue
			}
			for _, question := range []string{"ping?" + to.GuestIP, "tcp?" + to.GuestIP + ":80"} {
				tries.Go(func() {
					if want(from, to) {
						w.reaches(t, from, question)
					} else {
						w.cutOff(t, from, question)
					}
				})
			}
		}
	}
	tries.Wait()
}

// line is a TCP connection of a guest to the internet, and one of the host to the
// guest that carries on what comes by it. Both stay.
type line struct {
	internet net.Conn
	guest    net.Conn
	answer   *bufio.Reader
}

// stream sends numbered packets from the internet by way of a guest to the host.
func (w *world) stream(t *testing.T, vm wire.VM) *zwrmtest.Stream {
	t.Helper()
	l := w.hold(t, vm)
	must(t, l.guest.SetReadDeadline(time.Time{}))
	return zwrmtest.Through(t, "internet by "+vm.Name, l.internet, l.answer)
}

// hold has a guest that answers already make a line.
func (w *world) hold(t *testing.T, vm wire.VM) *line {
	t.Helper()
	const port = "7000"
	var listener net.Listener
	var err error
	w.Outside.Do(t, func() { listener, err = net.Listen("tcp4", ":"+port) })
	must(t, err)
	defer listener.Close()
	must(t, listener.(*net.TCPListener).SetDeadline(time.Now().Add(within)))
	l := &line{}
	l.guest, err = w.dial(t.Context(), t, net.JoinHostPort(vm.GuestIP, "80"))
	must(t, err)
	t.Cleanup(func() { _ = l.guest.Close() })
	_, err = fmt.Fprintf(l.guest, "GET /cgi-bin/hold?%s:%s HTTP/1.0\r\n\r\n", zwrmtest.OutsideAddress, port)
	must(t, err)
	l.internet, err = listener.Accept()
	must(t, err)
	t.Cleanup(func() { _ = l.internet.Close() })
	l.answer = bufio.NewReader(l.guest)
	must(t, l.guest.SetReadDeadline(time.Now().Add(within)))
	resp, err := http.ReadResponse(l.answer, nil)
	must(t, err)
	l.answer = bufio.NewReader(resp.Body)
	return l
}

// carries sends a text from the internet by way of the guest to the host.
func (l *line) carries(t *testing.T, text string) {
	t.Helper()
	_, err := fmt.Fprintln(l.internet, text)
	must(t, err)
	must(t, l.guest.SetReadDeadline(time.Now().Add(within)))
	got, err := l.answer.ReadString('\n')
	if err != nil || got != text+"\n" {
		t.Fatalf("a connection from before: %q came, want %q (%v)", got, text, err)
	}
}

// silent reports an error if the guest answers the host's ping.
func (w *world) silent(t *testing.T, vm wire.VM) {
	t.Helper()
	if err := zwrmtest.Ping(t, w.Namespace, netip.MustParseAddr(vm.GuestIP), time.Second); err == nil {
		t.Errorf("%s answers", vm.Name)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

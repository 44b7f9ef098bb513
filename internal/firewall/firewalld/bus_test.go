package firewalld

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// nothingToDo reports an error unless the methods find no firewalld, which is none.
func nothingToDo(t *testing.T, z *Zone) {
	t.Helper()
	if got := diff(t, z); got != "" {
		t.Errorf("Diff: %s", got)
	}
	state, err := z.State(t.Context())
	if err != nil || state.Running {
		t.Errorf("State: %+v, %v", state, err)
	}
	if err := errors.Join(z.Apply(t.Context()), z.Remove(t.Context())); err != nil {
		t.Error(err)
	}
}

// TestNobodyThere: neither a bus nor a firewalld has to be there, and both may come
// and go.
func TestNobodyThere(t *testing.T) {
	t.Parallel()
	bus := startBus(t)
	bus.stop()
	z := bus.open()
	nothingToDo(t, z)

	bus.start()
	f := bus.firewalld(nil)
	await(t, z, "bus and firewalld started")
	must(t, z.Apply(t.Context()))
	if got := f.did(); got != "addInterface trusted zvm+" {
		t.Errorf("did %q", got)
	}

	f.conn.Close()
	await(t, z, "firewalld ended")
	nothingToDo(t, z)

	f = bus.firewalld(nil)
	await(t, z, "firewalld started again")
	must(t, z.Apply(t.Context()))
	if got := f.did(); got != "addInterface trusted zvm+" {
		t.Errorf("did %q", got)
	}

	bus.stop()
	bus.start()
	f = bus.firewalld(nil)
	await(t, z, "bus started again")
	if got := diff(t, z); got != missing {
		t.Errorf("Diff: %s", got)
	}
	must(t, z.Apply(t.Context()))
	if got := f.did(); got != "addInterface trusted zvm+" {
		t.Errorf("did %q", got)
	}
}

// TestBusAlone: a bus without firewalld, at first or later, is nothing to tell of.
func TestBusAlone(t *testing.T) {
	t.Parallel()
	bus := startBus(t)
	nothingToDo(t, bus.open())
	bus.stop()
	z := bus.open()
	bus.start()
	eventually(t, "connected", func() bool {
		z.bus.mu.Lock()
		defer z.bus.mu.Unlock()
		return z.bus.conn != nil && z.bus.mood == unknown
	})
	nothingToDo(t, z)
	select {
	case <-z.Changed():
		t.Error("Changed tells of a bus alone")
	default:
	}
}

// TestEndsInTheMiddle: a firewalld or a bus that ends before it has answered is none.
func TestEndsInTheMiddle(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"firewalld", "bus"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bus := startBus(t)
			f := bus.firewalld(nil)
			z := &Zone{bus: openBus(t.Context(), bus.address, time.Hour)}
			t.Cleanup(func() { z.Close() })
			defer f.stall()()
			go func() {
				for f.count() == 0 {
					time.Sleep(time.Millisecond)
				}
				if name == "bus" {
					bus.stop()
				} else {
					f.conn.Close()
				}
			}()
			nothingToDo(t, z)
		})
	}
}

// TestAbsent: which errors mean that nobody is there.
func TestAbsent(t *testing.T) {
	tests := []struct {
		err  error
		want bool
	}{
		{dbus.Error{Name: "org.freedesktop.DBus.Error.ServiceUnknown"}, true},
		{dbus.Error{Name: "org.freedesktop.DBus.Error.NameHasNoOwner"}, true},
		{dbus.Error{Name: "org.freedesktop.DBus.Error.NoReply"}, true},
		{dbus.ErrClosed, true},
		{io.EOF, true},
		{io.ErrUnexpectedEOF, true},
		{&net.OpError{Op: "write", Err: syscall.EPIPE}, true},
		{dbus.Error{Name: "org.freedesktop.DBus.Error.AccessDenied"}, false},
		{dbus.Error{Name: service + ".Exception"}, false},
		{context.DeadlineExceeded, false},
		{nil, false},
	}
	for _, test := range tests {
		if got := absent(test.err); got != test.want {
			t.Errorf("%v: %v", test.err, got)
		}
	}
}

// TestStarting: a firewalld that has its name and does not answer yet is taken for
// none, and Changed tells when it answers.
func TestStarting(t *testing.T) {
	t.Parallel()
	bus := startBus(t)
	z := bus.open()
	f := bus.prepare(nil)
	release := f.stall()
	defer release()
	f.own()
	eventually(t, "firewalld has its name", func() bool { return z.bus.is(starting) })
	nothingToDo(t, z)
	select {
	case <-z.Changed():
		t.Error("Changed tells of a firewalld that does not answer")
	default:
	}
	release()
	await(t, z, "firewalld answers")
	if got := diff(t, z); got != missing {
		t.Errorf("Diff: %s", got)
	}
}

// TestSilent: one method waits for a firewalld that hangs, and the next ones do not,
// until it answers again.
func TestSilent(t *testing.T) {
	t.Parallel()
	bus := startBus(t)
	f := bus.firewalld(nil)
	z := bus.open()
	must(t, z.Apply(t.Context()))
	release := f.stall()
	defer release()
	if _, err := z.Diff(t.Context()); !errors.Is(err, errSilent) {
		t.Fatalf("Diff: %v", err)
	}
	before := f.count()
	if err := z.Apply(t.Context()); !errors.Is(err, errSilent) {
		t.Errorf("Apply: %v", err)
	}
	if err := z.Remove(t.Context()); !errors.Is(err, errSilent) {
		t.Errorf("Remove: %v", err)
	}
	if _, err := z.State(t.Context()); !errors.Is(err, errSilent) {
		t.Errorf("State: %v", err)
	}
	if n := f.count() - before; n > 1 { // the question that waits
		t.Errorf("a firewalld that hangs was asked %d times", n)
	}
	release()
	await(t, z, "firewalld answers again")
	if got := diff(t, z); got != "" {
		t.Errorf("Diff: %s", got)
	}
	must(t, z.Remove(t.Context()))
}

// TestSilentBus: a bus that takes connections and says nothing holds nobody up.
func TestSilentBus(t *testing.T) {
	t.Parallel()
	d := startBus(t)
	d.stop()
	listener, err := net.Listen("unix", filepath.Join(d.dir, "bus"))
	must(t, err)
	defer listener.Close()
	nothingToDo(t, d.open())

	ctx, cancel := context.WithCancel(t.Context())
	opened := make(chan *bus, 1)
	go func() { opened <- openBus(ctx, d.address, time.Hour) }()
	_, err = listener.Accept()
	must(t, err)
	cancel()
	select {
	case b := <-opened:
		b.close()
	case <-time.After(arriveWithin):
		t.Error("a canceled attempt to connect goes on")
	}
}

// TestCanceled: the caller's own context is no sign of a firewalld that hangs.
func TestCanceled(t *testing.T) {
	t.Parallel()
	bus := startBus(t)
	bus.firewalld(nil)
	z := bus.open()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := z.Diff(ctx); !errors.Is(err, ctx.Err()) {
		t.Errorf("Diff: %v", err)
	}
	if got := diff(t, z); got != missing {
		t.Errorf("Diff: %s", got)
	}
	if _, err := Open(ctx, bus.address, nil); !errors.Is(err, ctx.Err()) {
		t.Errorf("Open: %v", err)
	}
}

// TestClose: nothing is asked after Close, and nothing listens.
func TestClose(t *testing.T) {
	t.Parallel()
	bus := startBus(t)
	f := bus.firewalld(map[string][]string{"trusted": {"zvm+"}})
	z, err := Open(t.Context(), bus.address, nil)
	must(t, err)
	must(t, z.Close())
	must(t, z.Close())
	nothingToDo(t, z)
	if n := f.count(); n != 0 {
		t.Errorf("%d calls", n)
	}
}

// TestMeaning: which signals make a look worth while. Our own changes do not, nor
// does what somebody makes up.
func TestMeaning(t *testing.T) {
	t.Parallel()
	owner := func(sender, now string) *dbus.Signal {
		return &dbus.Signal{Sender: sender, Name: busName + ".NameOwnerChanged", Body: []any{service, "", now}}
	}
	about := func(name, zone, i string) *dbus.Signal {
		return &dbus.Signal{Sender: ":1.7", Name: zoneCalls + name, Body: []any{zone, i}}
	}
	tests := []struct {
		name   string
		signal *dbus.Signal
		wanted bool
		want   meaning
	}{
		{"started", owner(busName, ":1.7"), true, appeared},
		{"ended", owner(busName, ""), true, ended},
		{"said to have ended by somebody else", owner(":1.9", ""), true, nothing},
		{"reloaded", &dbus.Signal{Name: service + ".Reloaded"}, true, changed},
		{"settings of a zone", &dbus.Signal{Name: zoneCalls + ".ZoneUpdated", Body: []any{"public", map[string]dbus.Variant{}}}, true, changed},
		{"our binding made", about(".InterfaceAdded", "trusted", "zvm+"), true, nothing},
		{"our binding taken away by us", about(".InterfaceRemoved", "trusted", "zvm+"), false, nothing},
		{"our binding taken away", about(".InterfaceRemoved", "trusted", "zvm+"), true, changed},
		{"our binding moved", about(".ZoneOfInterfaceChanged", "public", "zvm+"), true, changed},
		{"a TAP put elsewhere", about(".InterfaceAdded", "public", "zvm3"), true, changed},
		{"conflict taken away", about(".InterfaceRemoved", "public", "z+"), true, changed},
		{"another interface", about(".InterfaceAdded", "public", "eth0"), true, nothing},
		{"another change", about(".ServiceAdded", "public", "zvm+"), true, nothing},
		{"without a body", &dbus.Signal{Name: zoneCalls + ".InterfaceAdded"}, true, nothing},
		{"with another body", &dbus.Signal{Name: zoneCalls + ".InterfaceAdded", Body: []any{1, 2}}, true, nothing},
		{"owner without a body", &dbus.Signal{Sender: busName, Name: busName + ".NameOwnerChanged"}, true, nothing},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := &bus{wanted: test.wanted}
			if got := b.meaning(test.signal); got != test.want {
				t.Errorf("%d, want %d", got, test.want)
			}
		})
	}
}

// TestSignals: the signals arrive, and many are one.
func TestSignals(t *testing.T) {
	t.Parallel()
	bus := startBus(t)
	f := bus.firewalld(nil)
	z := bus.open()
	must(t, z.Apply(t.Context()))
	f.emit(service + ".Reloaded")
	await(t, z, "reloaded")
	f.emit(removed, "trusted", "zvm+")
	await(t, z, "removed by somebody")
	f.emit(moved, "public", "zvm+")
	await(t, z, "moved by somebody")
	f.emit(updated, "public", map[string]dbus.Variant{})
	await(t, z, "settings of a zone")
	must(t, z.Remove(t.Context()))
	if z.bus.wants() {
		t.Error("the binding is wanted after Remove")
	}
}

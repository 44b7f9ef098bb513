package firewalld

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// Address is where a message bus listens, as in "unix:path=/run/dbus/socket"
// (D-Bus Specification, "Server Addresses"). Empty is the system bus, which the
// environment may name in DBUS_SYSTEM_BUS_ADDRESS.
type Address string

const (
	// patience is how long a method of Zone waits for firewalld in all.
	patience = 5 * time.Second
	// firstRetry and lastRetry are pauses between two attempts to connect. They double.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 10 * time.Second
)

var (
	// errAbsent says that there is no firewalld, or not yet.
	errAbsent = errors.New("firewalld does not run")
	// errSilent says that firewalld did not answer the last time. Nobody waits for it
	// again before it does.
	errSilent = errors.New("firewalld does not answer")
)

// bus is a connection to a message bus, made anew whenever it breaks.
type bus struct {
	address  Address
	patience time.Duration
	changed  chan struct{}
	doubts   chan struct{} // firewalld has fallen silent
	end      context.CancelFunc
	ended    chan struct{}

	mu     sync.Mutex
	conn   *dbus.Conn // the last one, which may be broken; nil: none yet
	mood   mood
	wanted bool // the binding: who takes it away undoes what we want
}

// openBus connects, and goes on connecting and listening until close. ctx bounds the
// first attempt.
func openBus(ctx context.Context, address Address, patience time.Duration) *bus {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	b := &bus{address: address, patience: patience, end: end, ended: make(chan struct{}),
		changed: make(chan struct{}, 1), doubts: make(chan struct{}, 1)}
	stop := context.AfterFunc(ctx, end)
	signals, _ := b.connect(life, unknown) // run goes on trying
	stop()
	go b.run(life, signals)
	return b
}

func (b *bus) close() {
	b.end()
	<-b.ended
}

// run follows firewalld over one connection after the other.
func (b *bus) run(life context.Context, signals <-chan *dbus.Signal) {
	defer close(b.ended)
	pause := firstRetry
	for {
		if signals != nil {
			b.follow(life, signals)
			pause = firstRetry
		}
		select {
		case <-time.After(pause):
		case <-life.Done():
			return
		}
		pause = min(2*pause, lastRetry)
		signals, _ = b.connect(life, starting) // a bus that is not there is no error
	}
}

// connect connects to the bus and asks it for firewalld's signals. The connection
// lasts until life ends, at most.
func (b *bus) connect(life context.Context, mood mood) (_ <-chan *dbus.Signal, err error) {
	conn, err := dial(life, b.address)
	if err != nil {
		return nil, err
	}
	late := time.AfterFunc(b.patience, func() { conn.Close() })
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	err = greet(conn)
	if !late.Stop() && err == nil {
		err = errSilent
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conn, b.mood = conn, mood
	return signals, nil
}

func dial(life context.Context, address Address) (*dbus.Conn, error) {
	if address == "" {
		return dbus.SystemBusPrivate(dbus.WithContext(life))
	}
	return dbus.Dial(string(address), dbus.WithContext(life))
}

// greet makes a new connection ready, and asks for the signals of who has firewalld's
// name. The bus sees to it that they come from nobody else.
func greet(conn *dbus.Conn) error {
	if err := conn.Auth(nil); err != nil {
		return err
	}
	if err := conn.Hello(); err != nil {
		return err
	}
	for _, rule := range [][]dbus.MatchOption{
		{dbus.WithMatchSender(busName), dbus.WithMatchMember(ownerChanged), dbus.WithMatchArg(0, service)},
		{dbus.WithMatchSender(service), dbus.WithMatchInterface(service), dbus.WithMatchMember(reloaded)},
		{dbus.WithMatchSender(service), dbus.WithMatchInterface(zoneCalls)},
	} {
		if err := conn.AddMatchSignal(rule...); err != nil {
			return err
		}
	}
	return nil
}

// follow listens until the connection breaks.
func (b *bus) follow(life context.Context, signals <-chan *dbus.Signal) {
	var answer <-chan *dbus.Call
	if b.is(starting) {
		answer = b.probe(life)
	}
	for {
		select {
		case s, ok := <-signals:
			if !ok {
				return
			}
			switch b.meaning(s) {
			case appeared:
				b.become(starting)
				answer = b.probe(life)
			case ended:
				b.become(unknown)
				b.notify()
			case changed:
				b.notify()
			}
		case <-b.doubts:
			answer = b.probe(life)
		case call := <-answer:
			answer = nil
			b.become(unknown)
			if !absent(call.Err) {
				b.notify()
			}
		}
	}
}

// probe asks firewalld anything, and returns where its answer arrives, however late.
func (b *bus) probe(life context.Context) <-chan *dbus.Call {
	b.mu.Lock()
	defer b.mu.Unlock()
	answer := make(chan *dbus.Call, 1)
	b.conn.Object(service, path).GoWithContext(life, getProperty, dbus.FlagNoAutoStart, answer, service, "state")
	return answer
}

// notify tells whoever listens to Changed.
func (b *bus) notify() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// within returns a context that ends when firewalld has had its time.
func (b *bus) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, b.patience, errSilent)
}

// ask calls a method of firewalld and stores what it returns. It does not start
// firewalld.
func (b *bus) ask(ctx context.Context, object dbus.ObjectPath, method string, answer any, args ...any) error {
	conn, err := b.ready()
	if err != nil {
		return err
	}
	call := conn.Object(service, object).CallWithContext(ctx, method, dbus.FlagNoAutoStart, args...)
	switch {
	case call.Err == nil:
		return call.Store(answer)
	case absent(call.Err):
		return errAbsent
	case errors.Is(context.Cause(ctx), errSilent):
		b.doubt(conn)
		return errSilent
	}
	return call.Err
}

// absent reports whether a call found nobody: no firewalld, one that ended in the
// middle, or no bus.
func absent(err error) bool {
	var refused dbus.Error
	if errors.As(err, &refused) {
		switch refused.Name {
		case busName + ".Error.ServiceUnknown", busName + ".Error.NameHasNoOwner", busName + ".Error.NoReply":
			return true
		}
		return false
	}
	var broken *net.OpError
	return errors.Is(err, dbus.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &broken)
}

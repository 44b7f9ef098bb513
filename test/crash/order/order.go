package order

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"zwrm/internal/effect"
)

// What the environment of the zwrmd under test has.
const (
	SocketVariable = "ZWRM_CRASH_SOCKET" // path of the socket that takes orders
	PointsVariable = "ZWRM_CRASH_POINTS" // path of the file that side effects are noted in
	OrderVariable  = "ZWRM_CRASH_ORDER"  // the first order, in JSON
)

// Injected is the text of the error that an order to fail makes.
const Injected = "failed on purpose"

// Action is what to do at a side effect.
type Action string

// The actions.
const (
	Count      Action = "" // nothing but count
	KillBefore Action = "kill before"
	KillAfter  Action = "kill after"
	Fail       Action = "fail"
)

// Point is one side effect: the nth of its kind since the order was given.
type Point struct {
	Op effect.Op
	N  int // from 1
}

// String returns the point as in "store.create 1".
func (p Point) String() string { return fmt.Sprintf("%s %d", p.Op, p.N) }

// Order is what to do at which side effect. Times is for one that fails: as many fail
// then, of its kind and of others of the same package.
type Order struct {
	Action Action
	Point  Point
	Times  int
}

// Taker takes orders and carries them out. It is an effect.Hook.
type Taker struct {
	mu     sync.Mutex
	order  Order
	failed int
	before map[effect.Op]int
	after  map[effect.Op]int
	points *os.File
}

// New returns a Taker that has got the order of the environment and listens for more
// until the process ends.
func New() (*Taker, error) {
	points, err := os.OpenFile(os.Getenv(PointsVariable), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open file for side effects: %w", err)
	}
	t := &Taker{points: points}
	var first Order
	if text := os.Getenv(OrderVariable); text != "" {
		if err := json.Unmarshal([]byte(text), &first); err != nil {
			return nil, fmt.Errorf("read order: %w", err)
		}
	}
	if err := t.take(first); err != nil {
		return nil, err
	}
	path := os.Getenv(SocketVariable)
	_ = os.Remove(path) // of the one before, which was killed
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for orders: %w", err)
	}
	server := &http.Server{Handler: http.HandlerFunc(t.serve), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	return t, nil
}

// serve takes an order, which begins the count anew.
func (t *Taker) serve(w http.ResponseWriter, r *http.Request) {
	var o Order
	err := json.NewDecoder(r.Body).Decode(&o)
	if err == nil {
		err = t.take(o)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

func (t *Taker) take(o Order) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.order, t.failed = o, 0
	t.before, t.after = map[effect.Op]int{}, map[effect.Op]int{}
	return t.points.Truncate(0)
}

// Before counts a side effect.
func (t *Taker) Before(op effect.Op) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.before[op]++
	n := t.before[op]
	fmt.Fprintf(t.points, "%s %d\n", op, n)
	here := t.order.Point == Point{op, n}
	switch {
	case t.order.Action == KillBefore && here:
		die()
	case t.order.Action == Fail && (here || t.failed > 0 && maker(op) == maker(t.order.Point.Op)) && t.failed < t.order.Times:
		t.failed++
		return errors.New(Injected)
	}
	return nil
}

// maker returns the package that has the side effect.
func maker(op effect.Op) string {
	name, _, _ := strings.Cut(string(op), ".")
	return name
}

// After counts a side effect that was had.
func (t *Taker) After(op effect.Op) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.after[op]++
	if t.order.Action == KillAfter && t.order.Point == (Point{op, t.after[op]}) {
		die()
	}
}

// die ends the process as kill -9 does. Nobody else passes the seam meanwhile.
func die() {
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {}
}

// Giver gives orders to the zwrmd of a socket.
type Giver struct{ client *http.Client }

// NewGiver returns a Giver.
func NewGiver(socket string) *Giver {
	return &Giver{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}}
}

// Give gives an order.
func (g *Giver) Give(o Order) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	resp, err := g.client.Post("http://zwrmd/", "application/json", strings.NewReader(string(text)))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// Points reads the side effects since the last order from the file that they were
// noted in.
func Points(path string) ([]Point, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var points []Point
	for line := range strings.Lines(string(text)) {
		var p Point
		if _, err := fmt.Sscan(line, &p.Op, &p.N); err != nil {
			return nil, err
		}
		points = append(points, p)
	}
	return points, nil
}

package measure

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"zwrm/internal/client"
	"zwrm/internal/host"
	"zwrm/internal/host/nstest"
	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

const (
	// subnet is a /15: beside the 16,384 VMs that a /16 holds there is room for those
	// that come and go.
	subnet   = "10.64.0.0/15"
	clients  = 64
	patience = 5 * time.Minute
	look     = 20 * time.Millisecond // between two looks at links
	still    = 250 * time.Millisecond
)

// daemon is the real zwrmd on a host of its own, and those who ask it for networks.
type daemon struct {
	*zwrmtest.Daemon
	dataplane string
	perApp    int
	pool      int // TAPs that it has ready
	poolable  bool
	callers   []*client.Client
}

// newDaemon starts a zwrmd without VMs and without a pool.
func newDaemon(t testing.TB, dataplane string, perApp int) *daemon {
	t.Helper()
	h := zwrmtest.NewHost(t)
	d := &daemon{dataplane: dataplane, perApp: perApp, Daemon: h.NewDaemon(t, nil)}
	// No longer than the namespace: with it, each TAP would take 20 ms.
	t.Cleanup(func() { deleteLinks(t, h.Namespace, "zvm") })
	d.poolable = strings.Contains(d.Run(t, "--generate-config").Stdout, "\npool = ")
	d.configure(t, 0)
	for range clients {
		d.callers = append(d.callers, d.Client(t))
	}
	d.start(t)
	return d
}

func (d *daemon) configure(t testing.TB, pool int) {
	t.Helper()
	d.pool = pool
	settings := zwrmtest.Settings{
		"network.subnet": fmt.Sprintf("%q", subnet), "network.firewall": fmt.Sprintf("%q", d.dataplane),
		"network.bridge.enabled": "true", "network.bridge.subnet": `"10.0.0.0/16"`, "network.on_shutdown": `"keep"`,
	}
	if d.poolable {
		settings["network.pool"] = fmt.Sprint(pool)
	}
	d.Configure(t, settings)
}

// restart has zwrmd run with such a pool, and returns how long it took until it was
// ready.
func (d *daemon) restart(t testing.TB, pool int) time.Duration {
	t.Helper()
	d.Stop(t)
	d.configure(t, pool)
	took := d.start(t)
	d.settle(t)
	return took
}

// start starts zwrmd and returns how long it took until it said that it is ready.
func (d *daemon) start(t testing.TB) time.Duration {
	t.Helper()
	path := filepath.Join(filepath.Dir(d.Config), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer os.Remove(path)
	defer socket.Close()
	var began time.Time
	d.Prepare = func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path)
		began = time.Now()
	}
	ready := make(chan time.Time, 1)
	go func() {
		defer close(ready)
		buf := make([]byte, 4096)
		for {
			n, err := socket.Read(buf)
			if err != nil { // it was closed
				return
			}
			if strings.Contains(string(buf[:n]), "READY=1") {
				ready <- time.Now()
				return
			}
		}
	}()
	d.StartReady(t)
	select {
	case at := <-ready:
		return at.Sub(began)
	case <-time.After(patience):
		t.Fatalf("%s: zwrmd does not say that it is ready", d.dataplane)
		return 0
	}
}

func (d *daemon) name() string { return d.dataplane }
func (d *daemon) pooled() bool { return d.pool > 0 }

func (d *daemon) attach(t testing.TB, n int) time.Duration {
	t.Helper()
	start := time.Now()
	must(t, d.request(t, d.callers[0], n))
	return time.Since(start)
}

func (d *daemon) request(t testing.TB, c *client.Client, n int) error {
	_, err := c.Attach(t.Context(), wire.Attach{Name: fmt.Sprintf("vm-%d", n), App: d.app(n / d.perApp)})
	return err
}

func (d *daemon) app(n int) string { return fmt.Sprintf("app-%d", n) }

func (d *daemon) detach(t testing.TB, n int) time.Duration {
	t.Helper()
	start := time.Now()
	must(t, d.callers[0].Detach(t.Context(), fmt.Sprintf("vm-%d", n)))
	return time.Since(start)
}

// fill has many clients attach VMs at once.
func (d *daemon) fill(t testing.TB, first, count int) time.Duration {
	t.Helper()
	start := time.Now()
	var group errgroup.Group
	for i, c := range d.callers {
		group.Go(func() error {
			for n := first + i; n < first+count; n += len(d.callers) {
				if err := d.request(t, c, n); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, group.Wait())
	return time.Since(start)
}

// destroyAll destroys all apps at once, and returns how long it took until all was
// answered, and until there was no link of theirs.
func (d *daemon) destroyAll(t testing.TB, vms int) (answered, gone time.Duration) {
	t.Helper()
	taps := d.taps(t)
	start := time.Now()
	var group errgroup.Group
	group.SetLimit(clients)
	for n := range (vms + d.perApp - 1) / d.perApp {
		group.Go(func() error { return d.callers[n%clients].Destroy(t.Context(), d.app(n)) })
	}
	must(t, group.Wait())
	answered = time.Since(start)
	d.await(t, taps, false)
	return answered, time.Since(start)
}

// taps returns the names of the TAPs that VMs have.
func (d *daemon) taps(t testing.TB) []string {
	t.Helper()
	var names []string
	for _, vm := range d.VMs(t) {
		names = append(names, vm.TAP)
	}
	return names
}

// await waits until all links are there, or none. It asks for one after the other, since
// a list of all would hold up who changes some.
func (d *daemon) await(t testing.TB, names []string, there bool) {
	t.Helper()
	var socket int
	d.Host.Do(t, func() {
		var err error
		socket, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
	})
	defer unix.Close(socket)
	start := time.Now()
	for i := 0; i < len(names); {
		request, err := unix.NewIfreq(names[i])
		must(t, err)
		switch err := unix.IoctlIfreq(socket, unix.SIOCGIFINDEX, request); {
		case (err == nil) == there:
			i++
		case time.Since(start) > patience:
			t.Fatalf("%s: link %q is not as it should be after %s: %v", d.dataplane, names[i], patience, err)
		default:
			time.Sleep(look)
		}
	}
}

// settle waits until zwrmd has nothing left to do to links: to make those of its pool,
// to delete others.
func (d *daemon) settle(t testing.TB) {
	t.Helper()
	begin := time.Now()
	for since, last := begin, -1; ; time.Sleep(still / 5) {
		status, err := d.callers[0].NetworkStatus(t.Context())
		must(t, err)
		links := len(linksOf(t, d.Host.Namespace, "zvm"))
		if links != last || status.PendingLinks > 0 || d.poolable && status.Spare < d.pool {
			since, last = time.Now(), links
		}
		if time.Since(since) > still {
			return
		}
		if time.Since(begin) > patience {
			t.Fatalf("%s: zwrmd goes on to change links after %s", d.dataplane, patience)
		}
	}
}

// linksOf returns the names of links. It asks the settings, since a dump of links would
// hold up who changes some.
func linksOf(t testing.TB, ns *nstest.Namespace, prefix string) (names []string) {
	t.Helper()
	ns.Do(t, func() {
		folder, err := os.Open("/proc/sys/net/ipv4/conf")
		must(t, err)
		defer folder.Close()
		all, err := folder.Readdirnames(-1)
		must(t, err)
		for _, name := range all {
			if strings.HasPrefix(name, prefix) {
				names = append(names, name)
			}
		}
	})
	return names
}

// deleteLinks deletes all links of such names.
func deleteLinks(t testing.TB, ns *nstest.Namespace, prefix string) {
	t.Helper()
	ctx, names := context.WithoutCancel(t.Context()), linksOf(t, ns, prefix)
	ns.Do(t, func() {
		kernel, err := host.Open(nil)
		must(t, err)
		must(t, errors.Join(kernel.DeleteLinks(ctx, names...), kernel.Close()))
	})
}

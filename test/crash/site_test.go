package crash_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"zwrm/internal/client"
	"zwrm/internal/host"
	"zwrm/internal/host/nstest"
	"zwrm/internal/wire"
	"zwrm/test/crash/guest"
	"zwrm/test/crash/order"
	"zwrm/test/zwrmtest"
)

// within bounds the wait for anything that has to come. Many sites share the CPUs.
const within = 60 * time.Second

// pollEvery is how often one looks whether it has come.
const pollEvery = 15 * time.Millisecond

// site is a host with a zwrmd that takes orders, and with guests that nobody may reach.
type site struct {
	*zwrmtest.Host
	*client.Client
	t          *testing.T
	programs   string // folder
	daemon     *zwrmtest.Daemon
	plane      string // dataplane of the stories
	configured string // dataplane of the configuration
	pool       int    // TAPs that are made ahead
	giver      *order.Giver
	kernel     *host.Kernel
	flows      *flows

	jobs     chan func() // for the thread that is in the host's namespace, and starts processes
	process  *exec.Cmd   // zwrmd; nil: none was started
	ended    chan struct{}
	stderr   bytes.Buffer // of zwrmd; read when it has ended
	breaches atomic.Pointer[string]
	prey     *guest.Guest
	spies    []*guest.Guest
}

// newSite makes a host. Nothing runs there.
func newSite(t *testing.T, programs, plane string) *site {
	t.Helper()
	s := &site{Host: zwrmtest.NewHost(t), t: t, programs: programs, plane: plane, configured: plane, jobs: make(chan func())}
	s.daemon = s.NewDaemon(t, s.settings(nil))
	s.Client = client.New(s.daemon.Socket)
	t.Cleanup(s.Close)
	s.giver = order.NewGiver(filepath.Join(s.Dir, "orders"))
	var err error
	s.Do(t, func() { s.kernel, err = host.Open(nil) })
	s.must(err)
	t.Cleanup(func() { s.kernel.Close() })
	s.flows = newFlows(t, s.Namespace)
	go s.Do(t, func() {
		for job := range s.jobs {
			job()
		}
	})
	t.Cleanup(func() { close(s.jobs) })
	t.Cleanup(s.end)
	s.listen()
	return s
}

// settings returns the configuration, with some of it changed.
func (s *site) settings(changed zwrmtest.Settings) zwrmtest.Settings {
	all := zwrmtest.Settings{
		"network.firewall":       `"` + s.plane + `"`,
		"network.subnet":         `"172.16.0.0/21"`, // slots rest for a while
		"network.bridge.enabled": "true",
		"network.pool":           strconv.Itoa(s.pool),
	}
	for key, value := range changed {
		all[key] = value
	}
	return all
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// breachSocket is where VMs tell of who has reached them. Its name is no path: it
// belongs to the namespace of the host.
const breachSocket = "@zwrm-crash"

// listen is a service of the host that no guest may reach, and takes what VMs tell.
func (s *site) listen() {
	s.receive("udp4", fmt.Sprintf("0.0.0.0:%d", guest.Port), "the host was reached: ")
	s.receive("unixgram", breachSocket, "")
}

// receive takes each datagram that comes for a breach.
func (s *site) receive(network, address, what string) {
	s.t.Helper()
	var conn net.PacketConn
	var err error
	s.Do(s.t, func() { conn, err = new(net.ListenConfig).ListenPacket(s.t.Context(), network, address) })
	s.must(err)
	s.t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 256)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if n > 0 { // else a VM has asked whether the test still runs
				s.breach(what + string(buf[:n]))
			}
		}
	}()
}

func (s *site) breach(what string) { s.breaches.CompareAndSwap(nil, &what) }

// start starts zwrmd with an order and does not wait.
func (s *site) start(o order.Order) {
	s.t.Helper()
	text, err := json.Marshal(o)
	s.must(err)
	cmd := exec.Command(filepath.Join(s.programs, "zwrmd"), s.daemon.Config)
	cmd.Env = append(os.Environ(), "PATH="+s.programs+":"+os.Getenv("PATH"), "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere",
		order.SocketVariable+"="+filepath.Join(s.Dir, "orders"), order.OrderVariable+"="+string(text), order.PointsVariable+"="+s.points())
	s.stderr.Reset()
	cmd.Stderr = &s.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	s.jobs <- func() { started <- cmd.Start() }
	s.must(<-started)
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	s.process, s.ended = cmd, ended
}

// points is the path of the file with the side effects.
func (s *site) points() string { return filepath.Join(s.Dir, "points") }

// runs reports whether zwrmd runs.
func (s *site) runs() bool {
	if s.process == nil {
		return false
	}
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// kill ends zwrmd as kill -9 does.
func (s *site) kill() {
	if s.runs() {
		_ = s.process.Process.Kill() // it may have ended by itself
		<-s.ended
	}
}

// stop has zwrmd end as systemd does, and returns whether it did so without an error.
func (s *site) stop() error {
	if !s.runs() {
		return errors.New("zwrmd does not run")
	}
	_ = s.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(within):
		return errors.New("zwrmd does not end")
	}
	if state := s.process.ProcessState; !state.Success() {
		return fmt.Errorf("zwrmd ended with %s: %s", state, s.stderr.String())
	}
	return nil
}

// end ends zwrmd and all VMMs.
func (s *site) end() {
	s.kill()
	for pid := range s.vmms() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if s.t.Failed() {
		s.t.Logf("zwrmd said:\n%s", s.stderr.String())
	}
}

// errEnded says that zwrmd does not run, and that there is nothing to wait for.
var errEnded = errors.New("zwrmd does not run")

// eventually waits until look finds nothing wrong.
func (s *site) eventually(look func() error) error {
	for end := time.Now().Add(within); ; time.Sleep(pollEvery) {
		err := look()
		if err == nil || errors.Is(err, errEnded) {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("after %s: %w", within, err)
		}
	}
}

// converged reports what is not yet as it should be: of what zwrmd says itself.
func (s *site) converged() error {
	ctx, cancel := context.WithTimeout(s.t.Context(), within)
	defer cancel()
	if !s.runs() {
		return fmt.Errorf("%w: %s", errEnded, s.stderr.String())
	}
	vms, err := s.VMs(ctx, "")
	if err != nil {
		return err
	}
	have := map[string]int{}
	for _, vm := range vms {
		if vm.State != "running" {
			return fmt.Errorf("VM %q is %s: %s", vm.Name, vm.State, vm.Reason)
		}
		if !vm.Attachment {
			have[vm.App]++
		}
	}
	apps, err := s.Apps(ctx)
	if err != nil {
		return err
	}
	for _, app := range apps {
		if app.Scale != have[app.Name] {
			return fmt.Errorf("app %q has %d VMs, not %d", app.Name, have[app.Name], app.Scale)
		}
	}
	status, err := s.NetworkStatus(ctx)
	if err != nil {
		return err
	}
	if status.PendingLinks > 0 {
		return fmt.Errorf("%d links are not done", status.PendingLinks)
	}
	check, err := s.CheckNetwork(ctx)
	if err != nil {
		return err
	}
	if len(check.Differences) > 0 {
		return fmt.Errorf("not in sync: %v", check.Differences)
	}
	return nil
}

// converge waits until all is as it should be, and looks at everything.
func (s *site) converge() error {
	if err := s.eventually(s.converged); err != nil {
		return err
	}
	// What zwrmd does behind a request may still be at work.
	if err := s.eventually(s.whole); err != nil {
		return err
	}
	return s.friendly()
}

// friendly waits until the spies have heard of each other, now: the guests that note
// breaches do send and receive.
func (s *site) friendly() error {
	var before []int64
	for _, spy := range s.spies {
		before = append(before, spy.Friends())
	}
	return s.eventually(func() error {
		for i, spy := range s.spies {
			if spy.Friends() == before[i] {
				return fmt.Errorf("guest %s hears nothing of its own app", spy.Address)
			}
		}
		return nil
	})
}

// populate makes the guests that are there in every story: one that nobody may reach,
// and two of another app, which reach each other.
func (s *site) populate() {
	s.t.Helper()
	s.must(s.addImage("small"))
	s.prey = s.guest("prey-0", "prey")
	for _, name := range []string{"spy-0", "spy-1"} {
		s.spies = append(s.spies, s.guest(name, "spy"))
	}
	s.aim()
}

func (s *site) addImage(name string) error {
	kernel := filepath.Join(s.Dir, "kernel")
	if err := os.WriteFile(kernel, []byte("\x7fELF, or so it says"), 0o600); err != nil {
		return err
	}
	_, err := s.AddImage(s.t.Context(), wire.AddImage{Name: name, Kernel: kernel,
		Args: "crash.breaches=" + breachSocket + " crash.targets=172.16.0.2," + zwrmtest.HostAddress + "," + zwrmtest.OutsideAddress})
	return err
}

// guest attaches a guest and has it run.
func (s *site) guest(name, app string) *guest.Guest {
	s.t.Helper()
	vm, err := s.Attach(s.t.Context(), wire.Attach{Name: name, App: app})
	s.must(err)
	g := &guest.Guest{App: app, Address: netip.MustParseAddr(vm.GuestIP), Breach: func(from string) {
		s.breach(fmt.Sprintf("guest %q was reached by app %q", name, from))
	}}
	s.run(g, vm.TAP)
	return g
}

// run has a guest run until the test ends. It opens the TAP again when that was made
// anew, as a VMM is started again.
func (s *site) run(g *guest.Guest, tap string) {
	ctx, end := context.WithCancel(context.Background())
	done := make(chan struct{})
	go s.Do(s.t, func() {
		defer close(done)
		for ctx.Err() == nil {
			file, err := guest.Open(tap)
			if err != nil {
				time.Sleep(pollEvery) // it is not there now
				continue
			}
			stop := context.AfterFunc(ctx, func() { file.Close() })
			g.Run(file)
			stop()
			file.Close()
		}
	})
	s.t.Cleanup(func() {
		end()
		<-done
	})
}

// aim has the spies send to all whom they must not reach: the prey, the host, the VMs
// that there are, and those that will be made next.
func (s *site) aim() {
	s.t.Helper()
	vms, err := s.VMs(s.t.Context(), "")
	s.must(err)
	host := netip.MustParseAddr(zwrmtest.HostAddress)
	last := s.prey.Address
	targets := []netip.Addr{host, s.prey.Address}
	for _, vm := range vms {
		address := netip.MustParseAddr(vm.GuestIP)
		if vm.App != "spy" && vm.App != "prey" {
			targets = append(targets, address)
		}
		if last.Less(address) {
			last = address
		}
	}
	for range 4 {
		last = last.Next().Next().Next().Next()
		targets = append(targets, last)
	}
	for i, spy := range s.spies {
		friend := s.spies[1-i].Address
		spy.Aim(slices.Concat(targets, []netip.Addr{friend, spy.Address.Prev()})...)
	}
}

// breached returns who was let through, if anybody was.
func (s *site) breached() error {
	if what := s.breaches.Load(); what != nil {
		return errors.New(*what)
	}
	return nil
}

// programs builds the zwrmd under test and the stand-in for QEMU.
func programs(t *testing.T) string {
	t.Helper()
	dir := nstest.TempDir(t) // VMMs have users of their own
	for name, path := range map[string]string{"zwrmd": "./zwrmd", "qemu-system-x86_64": "./qemu", "qemu-system-aarch64": "./qemu"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), path)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	return dir
}

// TestMain has as many sites at once as there are processors, not more: their guests
// send all the time.
func TestMain(m *testing.M) {
	zwrmtest.Enter()
	os.Exit(m.Run())
}

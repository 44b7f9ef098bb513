package nstest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
)

// Namespace is a network namespace. A nil *Namespace is that of the calling
// thread, wherever one is expected: the one of the test's process, unless inside
// of Do.
type Namespace struct{ fd int }

// New makes a network namespace with lo up. It has no name on the machine and
// goes, with all that is in it, when the test ends.
func New(t testing.TB) *Namespace {
	t.Helper()
	fd, err := -1, error(nil)
	onOwnThread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			fd, err = openOwn()
		}
	})
	if err != nil {
		t.Fatalf("make network namespace: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	ns := &Namespace{fd}
	ns.Up(t, "lo")
	return ns
}

// openOwn opens the network namespace of the calling thread.
func openOwn() (int, error) {
	return unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// onOwnThread calls f on a thread that runs nothing else and ends with f, so that
// it may leave the namespace of the process.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread stands for the whole process in /proc/self. Held here,
			// it cannot be the one that the next goroutine gets.
			onOwnThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// Do calls f on a thread that is inside the namespace and ends after that.
// Sockets that f opens and processes that it starts belong to the namespace for
// good, and the functions of this package take that for their own namespace. f may
// call t.Fatal; goroutines that it starts are not inside.
func (ns *Namespace) Do(t testing.TB, f func()) {
	t.Helper()
	if ns == nil {
		f()
		return
	}
	var err error
	returned := false
	onOwnThread(func() {
		if err = unix.Setns(ns.fd, unix.CLONE_NEWNET); err == nil {
			f()
		}
		returned = true
	})
	if err != nil {
		t.Fatalf("enter network namespace: %v", err)
	}
	if !returned {
		t.FailNow() // as f did, which ended its own goroutine only
	}
}

// Up brings a link up.
func (ns *Namespace) Up(t testing.TB, link string) {
	t.Helper()
	ns.with(t, "bring link "+link+" up", func(conn *netlink.Conn) error { return up(conn, link) })
}

// Address gives a link an IPv4 address.
func (ns *Namespace) Address(t testing.TB, link string, address netip.Prefix) {
	t.Helper()
	ns.with(t, fmt.Sprintf("give link %s address %s", link, address), func(conn *netlink.Conn) error {
		index, err := indexOf(conn, link)
		if err != nil {
			return err
		}
		return conn.Do(netlink.NewAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, address))
	})
}

// Route adds an IPv4 route by a gateway; 0.0.0.0/0 is the default route.
func (ns *Namespace) Route(t testing.TB, dest netip.Prefix, gateway netip.Addr) {
	t.Helper()
	ns.with(t, fmt.Sprintf("add route to %s by %s", dest, gateway), func(conn *netlink.Conn) error {
		return conn.Do(newRoute(dest, gateway))
	})
}

// Set writes a kernel setting by its path below /proc/sys, as in
// "net/ipv4/ip_forward".
func (ns *Namespace) Set(t testing.TB, sysctl, value string) {
	t.Helper()
	ns.Do(t, func() {
		if err := os.WriteFile("/proc/sys/"+sysctl, []byte(value), 0); err != nil {
			t.Fatalf("set sysctl %q: %v", sysctl, err)
		}
	})
}

// dial returns a socket inside the namespace, which the caller closes.
func (ns *Namespace) dial(t testing.TB) *netlink.Conn {
	t.Helper()
	var conn *netlink.Conn
	var err error
	ns.Do(t, func() { conn, err = netlink.Dial(unix.NETLINK_ROUTE) })
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// with calls f with a socket inside the namespace.
func (ns *Namespace) with(t testing.TB, what string, f func(*netlink.Conn) error) {
	t.Helper()
	conn := ns.dial(t)
	defer conn.Close()
	if err := f(conn); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// Veth connects two namespaces by a pair of links, both up. They vanish with
// either namespace, and when the test ends.
func Veth(t testing.TB, a *Namespace, nameA string, b *Namespace, nameB string) {
	t.Helper()
	inB, end := b.fdOf(t)
	defer end()
	conn := a.dial(t)
	t.Cleanup(func() {
		if err := errors.Join(remove(conn, nameA), conn.Close()); err != nil {
			t.Errorf("disconnect %s and %s: %v", nameA, nameB, err)
		}
	})
	if err := conn.Do(newVeth(nameA, nameB, inB)); err != nil {
		t.Fatalf("connect %s and %s: %v", nameA, nameB, err)
	}
	a.Up(t, nameA)
	b.Up(t, nameB)
}

// fdOf returns a descriptor of the namespace until end is called.
func (ns *Namespace) fdOf(t testing.TB) (fd int, end func()) {
	t.Helper()
	if ns != nil {
		return ns.fd, func() {}
	}
	fd, err := openOwn()
	if err != nil {
		t.Fatalf("open network namespace: %v", err)
	}
	return fd, func() { unix.Close(fd) }
}

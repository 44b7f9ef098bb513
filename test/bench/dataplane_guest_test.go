package bench_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
	"zwrm/internal/host/nstest"
	"zwrm/internal/ipam"
)

// guest is a VM: a namespace with the kernel's whole TCP/IP stack. What its eth0
// sends is read from tap, and what is written there it receives; this process carries
// frames from there to the host's TAP, as a VMM does. So a packet goes from socket to
// socket within the system calls of one thread, without a wake-up, and takes less time
// than between any VMs.
type guest struct {
	ns      *nstest.Namespace
	address netip.Addr
	tap     int // descriptor
}

// couple is the guests behind a pair of TAPs. Every router has TAPs for these
// addresses, and they speak by one at a time.
type couple struct {
	pair           int
	client, server guest
	listener       int   // descriptor, on serverPort
	hello          *talk // a single flow, which is there all the time
	buf            []byte
}

// newCouple makes guests for a pair, and lets them speak by each router.
func newCouple(t testing.TB, routers []*router, at int) *couple {
	t.Helper()
	guests := routers[0].pairs[at].guests
	c := &couple{pair: at, client: newGuest(t, guests[0]), server: newGuest(t, guests[1]), buf: make([]byte, 2048)}
	c.server.ns.Do(t, func() { c.listener = socket(t, unix.SOCK_STREAM, c.server.at(serverPort)) })
	closeAfter(t, c.listener)
	must(t, unix.Listen(c.listener, 1))
	c.hello = c.talk(t, 1, clientPort, serverPort)
	for _, r := range routers {
		for try := 0; ; try++ {
			err := errors.Join(c.hello.ask(r, 0), c.hello.answer(r, 0))
			if err == nil {
				break
			}
			if try == 500 {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
			must(t, c.settle(r))
		}
	}
	return c
}

func newGuest(t testing.TB, address netip.Addr) guest {
	t.Helper()
	m := guest{ns: nstest.New(t), address: address}
	m.ns.Set(t, "net/ipv6/conf/default/disable_ipv6", "1")
	m.ns.Set(t, "net/ipv4/tcp_max_tw_buckets", "0") // ports are free again at once
	gateway, mac := address.Prev(), ipam.MACOf(address)
	m.ns.Do(t, func() {
		m.tap = openTAP(t, "eth0")
		conn, err := netlink.Dial(unix.NETLINK_ROUTE)
		must(t, err)
		request := netlink.NewLink(unix.RTM_SETLINK, 0, 0, 0, 0)
		request.Text(unix.IFLA_IFNAME, "eth0")
		request.Bytes(unix.IFLA_ADDRESS, mac[:])
		must(t, conn.Do(request))
		must(t, conn.Close())
	})
	m.ns.Address(t, "eth0", netip.PrefixFrom(address, 30))
	m.ns.Up(t, "eth0")
	m.ns.Route(t, netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway)
	m.ns.Do(t, func() {
		conn, err := netlink.Dial(unix.NETLINK_ROUTE)
		must(t, err)
		must(t, conn.Do(neighbour(t, "eth0", gateway, ipam.GatewayMAC())))
		must(t, conn.Close())
	})
	return m
}

// socket opens a socket in the namespace of the calling thread. It never waits.
func socket(t testing.TB, kind int, address unix.Sockaddr) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	must(t, unix.Bind(fd, address))
	return fd
}

func closeAfter(t testing.TB, fd int) { t.Cleanup(func() { unix.Close(fd) }) }

func (m guest) at(port uint16) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Addr: m.address.As4(), Port: int(port)}
}

// pass carries a frame that one guest has sent to the other. Its error wraps EAGAIN if
// there is none.
func (c *couple) pass(r *router, back bool) error {
	taps := r.pairs[c.pair].taps
	from, in, out, to := c.client.tap, taps[0], taps[1], c.server.tap
	if back {
		from, in, out, to = to, out, in, from
	}
	for _, step := range [][2]int{{from, in}, {out, to}} {
		n, err := unix.Read(step[0], c.buf)
		if err != nil {
			return fmt.Errorf("%s: frame of guests %d did not arrive: %w", r.rules, c.pair, err)
		}
		if _, err := unix.Write(step[1], c.buf[:n]); err != nil {
			return fmt.Errorf("%s: send frame of guests %d: %w", r.rules, c.pair, err)
		}
	}
	return nil
}

// settle carries frames until neither guest sends any.
func (c *couple) settle(r *router) error {
	for {
		there, back := c.pass(r, false), c.pass(r, true)
		for _, err := range []error{there, back} {
			if err != nil && !errors.Is(err, unix.EAGAIN) {
				return err
			}
		}
		if errors.Is(there, unix.EAGAIN) && errors.Is(back, unix.EAGAIN) {
			return nil
		}
	}
}

// talk is many flows between two guests: each of another pair of sockets.
type talk struct {
	*couple
	clients, servers       []int  // descriptors
	clientPort, serverPort uint16 // of the first of either; the others follow
}

// talk opens so many sockets on either side.
func (c *couple) talk(t testing.TB, sockets int, clientPort, serverPort uint16) *talk {
	t.Helper()
	open := func(m guest, first uint16) (fds []int) {
		m.ns.Do(t, func() {
			for i := range sockets {
				fds = append(fds, socket(t, unix.SOCK_DGRAM, m.at(first+uint16(i))))
				closeAfter(t, fds[i])
			}
		})
		return fds
	}
	return &talk{c, open(c.client, clientPort), open(c.server, serverPort), clientPort, serverPort}
}

// of returns which of the sockets have a flow.
func (x *talk) of(flow int) (client, server int) { return flow % len(x.clients), flow / len(x.clients) }

// ask sends a datagram of a flow from client to server.
func (x *talk) ask(r *router, flow int) error {
	client, server := x.of(flow)
	to := x.server.at(x.serverPort + uint16(server))
	return x.datagram(r, false, x.clients[client], to, x.servers[server])
}

// answer sends a datagram of a flow from server to client.
func (x *talk) answer(r *router, flow int) error {
	client, server := x.of(flow)
	to := x.client.at(x.clientPort + uint16(client))
	return x.datagram(r, true, x.servers[server], to, x.clients[client])
}

func (x *talk) datagram(r *router, back bool, from int, address unix.Sockaddr, to int) error {
	if err := unix.Sendto(from, x.buf[:payload], 0, address); err != nil {
		return fmt.Errorf("%s: send: %w", r.rules, err)
	}
	if err := x.pass(r, back); err != nil {
		return err
	}
	if _, err := unix.Read(to, x.buf); err != nil {
		return fmt.Errorf("%s: receive: %w", r.rules, err)
	}
	return nil
}

// connect opens a TCP connection by a client socket, and closes it again: first the
// client's end, then the server's.
func (c *couple) connect(r *router, client int) error {
	if err := unix.Connect(client, c.server.at(serverPort)); !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("%s: connect: %w", r.rules, err)
	}
	if err := c.settle(r); err != nil {
		return err
	}
	server, _, err := unix.Accept4(c.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("%s: accept: %w", r.rules, err)
	}
	for _, fd := range []int{client, server} {
		if err := unix.Close(fd); err != nil {
			return err
		}
		if err := c.settle(r); err != nil {
			return err
		}
	}
	return nil
}

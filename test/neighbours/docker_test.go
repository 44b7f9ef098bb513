package neighbours_test

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"zwrm/internal/host/nstest"
	"zwrm/test/zwrmtest"
)

// published is the port of the host that leads to the container.
const published = "8080"

// TestDockerAlone: Docker is as its users know it, so that what the other tests find
// out is not the fixture's doing.
func TestDockerAlone(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	zwrmtest.Serve(t, h.Outside, "tcp/80")
	d := startDocker(t, h)
	d.serve(t, "box", published)
	d.fine(t, "at first")
	first := h.Rules(t)
	for _, line := range []string{":FORWARD DROP", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -j RETURN"} {
		if !strings.Contains(first, line) {
			t.Errorf("%q is not in\n%s", line, first)
		}
	}
	d.restart(t)
	d.fine(t, "restarted")
	same(t, "restarted", h.Rules(t), first)
	d.kill(t)
	d.start(t)
	d.fine(t, "killed and started")
	same(t, "killed and started", h.Rules(t), first)
}

// TestDockerFirst: Docker runs when zwrmd starts, so forwarding is what Docker lets
// pass.
func TestDockerFirst(t *testing.T) {
	onEachDataplane(t, func(t *testing.T, dataplane string) {
		h := zwrmtest.NewHost(t)
		d := startDocker(t, h)
		d.serve(t, "box", published)
		before := h.Rules(t)
		s := newSite(t, h, dataplane)
		both := func(when string) {
			t.Helper()
			s.fine(t, when)
			d.fine(t, when)
		}
		both("at first")
		if hears(t, s.web[0].Namespace, zwrmtest.HostAddress+":"+published, "box") == nil {
			t.Error("a VM reaches a container by the host's published port")
		}
		d.kill(t)
		d.start(t)
		both("Docker killed and started")
		h.Run(t, "iptables", "-F", "DOCKER-USER")
		s.fine(t, "DOCKER-USER flushed")
		h.Run(t, "iptables", "-F", "FORWARD")
		s.fine(t, "FORWARD flushed")
		d.restart(t)
		both("Docker restarted")
		s.daemon.Kill()
		both("zwrmd killed")
		s.daemon.Start(t)
		both("zwrmd started again")
		s.daemon.Stop(t)
		same(t, "zwrmd stopped", h.Rules(t), before)
		left(t, h)
		d.fine(t, "zwrmd stopped")
	})
}

// TestDockerLater: Docker comes to a host on which VMs run, goes and comes again, and
// stays when zwrmd stops.
func TestDockerLater(t *testing.T) {
	onEachDataplane(t, func(t *testing.T, dataplane string) {
		h := zwrmtest.NewHost(t)
		s := newSite(t, h, dataplane)
		s.fine(t, "without Docker")
		d := startDocker(t, h)
		d.serve(t, "box", published)
		h.Run(t, "iptables", "-P", "FORWARD", "DROP") // as Docker does unless forwarding is on before it starts
		s.fine(t, "Docker started")
		d.fine(t, "beside VMs")
		d.stop(t)
		s.fine(t, "Docker stopped")
		d.start(t)
		s.fine(t, "Docker started again")
		d.fine(t, "started again")
		alone := theirs(t, h)
		s.daemon.Stop(t)
		same(t, "zwrmd stopped", h.Rules(t), alone)
		left(t, h)
		d.fine(t, "zwrmd stopped")
	})
}

// TestAccepts: with the dataplane nftables, what we put into rules of others is the
// same few rules however many VMs there are, and none with the dataplane iptables, even
// when the other one was killed.
func TestAccepts(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := startDocker(t, h)
	d.serve(t, "box", published)
	before := h.Rules(t)
	s := newSite(t, h, "nftables")
	const want = "" +
		`-A DOCKER-USER -o eth0 -m devgroup --src-group 0x5a000000/0xff000000 -m comment --comment "zwrm: internet" -j ACCEPT` + "\n" +
		`-A DOCKER-USER -i eth0 -m devgroup --dst-group 0x5a000000/0xff000000 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "zwrm: established" -j ACCEPT` + "\n" +
		`-A DOCKER-USER -m devgroup --src-group 0x5a000000/0xff000000 --dst-group 0x5a000000/0xff000000 -m comment --comment "zwrm: vm-to-vm" -j ACCEPT` + "\n"
	if got := accepts(t, h); got != want {
		t.Errorf("accepts are\n%s, want\n%s", got, want)
	}
	for _, dataplane := range []string{"iptables", "nftables"} {
		s.daemon.Kill()
		s.daemon.Configure(t, settings(dataplane))
		s.daemon.Start(t)
		s.fine(t, "switched to "+dataplane)
		d.fine(t, "switched to "+dataplane)
		if got := accepts(t, h); (got == want) != (dataplane == "nftables") || dataplane == "iptables" && got != "" {
			t.Errorf("with %s accepts are\n%s", dataplane, got)
		}
	}
	s.daemon.Stop(t)
	same(t, "zwrmd stopped", h.Rules(t), before)
	left(t, h)
}

// accepts returns the rules of ours that are in chains of others and do not call one of
// ours.
func accepts(t testing.TB, host *zwrmtest.Host) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(host.Rules(t)) {
		if strings.Contains(line, "zwrm: ") && !strings.Contains(line, "ZWRM-") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// fine reports an error if a container does not reach the internet, or the internet
// does not reach a container by its published port.
func (d *docker) fine(t testing.TB, when string) {
	t.Helper()
	mended(t, when+": internet to container", func() error {
		return hears(t, d.host.Outside, zwrmtest.HostAddress+":"+published, "box")
	})
	mended(t, when+": container to internet", func() error {
		r := d.try(t, "exec", "box", "/busybox", "nc", "-w", "1", zwrmtest.OutsideAddress, "80")
		if !strings.HasPrefix(r.Stdout, zwrmtest.HostAddress+":") {
			return fmt.Errorf("the internet saw %q; %s", r.Stdout, r.Stderr)
		}
		return nil
	})
}

// hears connects to a server, which must say a text and end the connection.
func hears(t testing.TB, from *nstest.Namespace, server, want string) error {
	t.Helper()
	conn, err := dial(t, from, netip.MustParseAddrPort(server))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return err
	}
	got, err := io.ReadAll(conn)
	if err == nil && strings.TrimSpace(string(got)) != want {
		err = fmt.Errorf("%q, not %q", got, want)
	}
	return err
}

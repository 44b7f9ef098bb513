package neighbours_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"zwrm/internal/host/nstest"
	"zwrm/test/zwrmtest"
)

const (
	// mendedWithin bounds how long VMs may be without their network after a neighbour
	// took our rules away. zwrmd looks by itself less often.
	mendedWithin = 15 * time.Second
	// answerWithin bounds one try that should be answered, and refusedWithin one that
	// should not.
	answerWithin  = time.Second
	refusedWithin = 300 * time.Millisecond
)

// site is a host with zwrmd, VMs of two apps, services on the host, and an internet.
type site struct {
	host   *zwrmtest.Host
	daemon *zwrmtest.Daemon
	web    [2]*zwrmtest.Guest
	other  *zwrmtest.Guest
	stream net.Conn // from a VM to the internet, open all the time
}

// onEachDataplane runs a test with each way in which zwrmd can make its rules.
func onEachDataplane(t *testing.T, test func(t *testing.T, dataplane string)) {
	t.Parallel()
	for _, dataplane := range []string{"iptables", "nftables"} {
		t.Run(dataplane, func(t *testing.T) {
			t.Parallel()
			test(t, dataplane)
		})
	}
}

// settings have a service of the host that VMs may use.
func settings(dataplane string) zwrmtest.Settings {
	return zwrmtest.Settings{
		"network.bridge.enabled": "true",
		"network.firewall":       fmt.Sprintf("%q", dataplane),
		"network.host_access":    `["tcp/9000"]`,
	}
}

// newSite starts zwrmd, with more variables in its environment, and VMs on a host.
func newSite(t testing.TB, host *zwrmtest.Host, dataplane string, env ...string) *site {
	t.Helper()
	s := &site{host: host, daemon: host.NewDaemon(t, settings(dataplane))}
	s.daemon.Prepare = func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, env...) }
	s.daemon.Start(t)
	s.web = [2]*zwrmtest.Guest{s.daemon.Guest(t, "web-0", "web"), s.daemon.Guest(t, "web-1", "web")}
	s.other = s.daemon.Guest(t, "other-0", "other")
	for _, guest := range []*zwrmtest.Guest{s.web[0], s.web[1], s.other} {
		zwrmtest.Serve(t, guest.Namespace, "tcp/80")
	}
	zwrmtest.Serve(t, host.Namespace, "tcp/22", "tcp/23", "tcp/9000")
	zwrmtest.Serve(t, host.Outside, "tcp/80")
	s.stream = openStream(t, host.Outside, s.web[0])
	return s
}

// openStream connects a guest to a service in the internet that repeats what it hears.
func openStream(t testing.TB, outside *nstest.Namespace, guest *zwrmtest.Guest) net.Conn {
	t.Helper()
	var listener net.Listener
	var err error
	outside.Do(t, func() { listener, err = net.Listen("tcp4", "0.0.0.0:7") })
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		if conn, err := listener.Accept(); err == nil {
			_, _ = io.Copy(conn, conn)
			conn.Close()
		}
	}()
	var conn net.Conn
	mended(t, "a VM connects to the internet", func() (err error) {
		conn, err = guest.Dial("tcp", zwrmtest.OutsideAddress+":7")
		return err
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}

// mended waits for something that is to succeed after a mend at the latest.
func mended(t testing.TB, what string, try func() error) {
	t.Helper()
	for end := time.Now().Add(mendedWithin); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s: %v", what, mendedWithin, err)
		}
	}
}

// fine reports an error if VMs reach whom they must not, or do not reach whom they must
// once zwrmd had the time to mend what was done to it.
func (s *site) fine(t testing.TB, when string) {
	t.Helper()
	for _, way := range s.open() {
		mended(t, when+": "+way.name, func() error { return way.try(t, answerWithin) })
	}
	mended(t, when+": a connection from before", s.echo)
	var tries sync.WaitGroup
	for _, way := range s.closed() {
		tries.Go(func() {
			if way.try(t, refusedWithin) == nil {
				t.Errorf("%s: %s", when, way.name)
			}
		})
	}
	tries.Wait()
}

// way is somebody who may reach somebody else or not.
type way struct {
	name string
	from *nstest.Namespace
	to   string // address and TCP port; without port: ping
	seen string // as what the sender is seen; empty: either
}

func (w way) try(t testing.TB, within time.Duration) error {
	t.Helper()
	to, err := netip.ParseAddrPort(w.to)
	if err != nil {
		return zwrmtest.Ping(t, w.from, netip.MustParseAddr(w.to), within)
	}
	seen, err := zwrmtest.Ask(t, w.from, "tcp", to, within)
	if err == nil && w.seen != "" && seen.String() != w.seen {
		return fmt.Errorf("seen as %s, not %s", seen, w.seen)
	}
	return err
}

func (s *site) open() []way {
	web0, web1 := s.web[0], s.web[1]
	return []way{
		{"VM to internet", web0.Namespace, zwrmtest.OutsideAddress + ":80", zwrmtest.HostAddress},
		{"ping from VM to internet", web1.Namespace, zwrmtest.OutsideAddress, ""},
		{"VM to VM of its app", web0.Namespace, web1.VM.GuestIP + ":80", web0.VM.GuestIP},
		{"ping from VM to VM of its app", web1.Namespace, web0.VM.GuestIP, ""},
		{"ping from VM to gateway", web0.Namespace, web0.VM.Gateway, ""},
		{"VM to service of the host", web0.Namespace, web0.VM.Gateway + ":9000", web0.VM.GuestIP},
		{"host to VM", s.host.Namespace, web0.VM.GuestIP + ":80", web0.VM.Gateway},
	}
}

func (s *site) closed() []way {
	web0 := s.web[0]
	return []way{
		{"VM reaches VM of another app", s.other.Namespace, web0.VM.GuestIP + ":80", ""},
		{"VM pings VM of another app", web0.Namespace, s.other.VM.GuestIP, ""},
		{"VM reaches a service of the host that is not listed", web0.Namespace, web0.VM.Gateway + ":22", ""},
		{"VM reaches a listed service by another address of the host", web0.Namespace, zwrmtest.HostAddress + ":9000", ""},
		{"internet reaches VM", s.host.Outside, web0.VM.GuestIP + ":80", ""},
		{"internet pings VM", s.host.Outside, web0.VM.GuestIP, ""},
	}
}

// echo sends on the connection that was opened at first, and waits for the answer.
func (s *site) echo() error {
	if err := s.stream.SetDeadline(time.Now().Add(mendedWithin)); err != nil {
		return err
	}
	if _, err := s.stream.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(s.stream, make([]byte, 1))
	return err
}

// left reports an error if anything of ours is in the rules of a host.
func left(t testing.TB, host *zwrmtest.Host) {
	t.Helper()
	if rules := host.Run(t, "nft", "list", "ruleset"); strings.Contains(strings.ToLower(rules), "zwrm") {
		t.Errorf("rules of ZWRM are left:\n%s", rules)
	}
}

// theirs returns the rules of others, as Rules does if there are none of ours.
func theirs(t testing.TB, host *zwrmtest.Host) string {
	t.Helper()
	rules := regexp.MustCompile(`(?im)^.*zwrm.*\n`).ReplaceAllString(host.Rules(t), "")
	return regexp.MustCompile(`(?m)^\*.*\n(:[A-Z]+ ACCEPT \[0:0\]\n)*COMMIT\n`).ReplaceAllString(rules, "")
}

// same reports an error if rules are not as they were.
func same(t testing.TB, when, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	gotLines, wantLines := strings.SplitAfter(got, "\n"), strings.SplitAfter(want, "\n")
	added := slices.DeleteFunc(slices.Clone(gotLines), func(line string) bool { return slices.Contains(wantLines, line) })
	removed := slices.DeleteFunc(wantLines, func(line string) bool { return slices.Contains(gotLines, line) })
	t.Errorf("%s: the rules of others changed; added:\n%sremoved:\n%snow:\n%s", when, strings.Join(added, ""), strings.Join(removed, ""), got)
}

// dial connects from a namespace.
func dial(t testing.TB, from *nstest.Namespace, to netip.AddrPort) (conn net.Conn, err error) {
	t.Helper()
	from.Do(t, func() { conn, err = net.DialTimeout("tcp4", to.String(), answerWithin) })
	return conn, err
}

package restart_test

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"zwrm/internal/config"
	"zwrm/internal/host/nstest"
	"zwrm/test/zwrmtest"
)

// TestNothingIsLost: two VMs and the internet lose no packet of what flows between
// them while zwrmd is stopped, killed, replaced and started again. New connections
// are made all the while.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	for _, dataplane := range []config.Dataplane{config.Iptables, config.Nftables} {
		t.Run(string(dataplane), func(t *testing.T) {
			t.Parallel()
			nothingIsLost(t, dataplane)
		})
	}
}

func nothingIsLost(t *testing.T, dataplane config.Dataplane) {
	h := zwrmtest.NewHost(t)
	keep := settings(dataplane)
	keep["network.on_shutdown"] = `"keep"`
	d := h.NewDaemon(t, keep)
	program := install(t, h.Dir)
	d.Prepare = func(cmd *exec.Cmd) { cmd.Path = program }
	d.Start(t)
	zwrmtest.Serve(t, h.Outside, "tcp/80")
	a, b := d.Guest(t, "web-0", "web"), d.Guest(t, "web-1", "web")
	zwrmtest.Serve(t, b.Namespace, "tcp/80")
	rows := fmt.Sprint(d.VMs(t))
	internet := netip.MustParseAddr(zwrmtest.OutsideAddress)
	var streams []*zwrmtest.Stream
	for _, network := range []string{"udp", "tcp"} {
		streams = append(streams,
			zwrmtest.NewStream(t, network, a.Namespace, b.Namespace, netip.AddrPortFrom(b.Address(), 7000)),
			zwrmtest.NewStream(t, network, a.Namespace, h.Outside, netip.AddrPortFrom(internet, 7000)))
	}
	flows := func(when string) {
		t.Helper()
		for _, s := range streams {
			s.Flows(t, when, 100)
		}
		asks(t, when, a.Namespace, netip.AddrPortFrom(internet, 80))
		asks(t, when, a.Namespace, netip.AddrPortFrom(b.Address(), 80))
	}
	flows("before")
	carriers(t, h)
	network := h.Dump(t)
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"stopped", func() { d.Stop(t) }},
		{"started", func() { d.Start(t) }},
		{"killed", d.Kill},
		{"started after a kill", func() { d.Start(t) }},
		{"program replaced while it runs", func() { install(t, h.Dir) }},
		{"new program started", func() { d.Restart(t) }},
		{"mended", func() { d.Must(t, "network", "repair") }},
	} {
		step.do()
		flows(step.name)
	}
	if now := fmt.Sprint(d.VMs(t)); now != rows {
		t.Errorf("VMs are\n%s\nand were\n%s", now, rows)
	}
	for _, s := range streams {
		s.Lost(t)
	}
	h.Same(t, network)
}

// carriers waits until the kernel has taken note of every VMM, a moment after that
// opened its TAP: else a look at the network before that and one behind it differ.
func carriers(t *testing.T, h *zwrmtest.Host) {
	t.Helper()
	eventually(t, "the kernel notices the VMMs", func() error {
		if links := h.Run(t, "ip", "-br", "link"); strings.Contains(links, "NO-CARRIER") || strings.Contains(links, " DOWN ") {
			return errors.New(links)
		}
		return nil
	})
}

// asks reports an error if no new connection can be made.
func asks(t *testing.T, when string, from *nstest.Namespace, to netip.AddrPort) {
	t.Helper()
	if _, err := zwrmtest.Ask(t, from, "tcp", to, 10*time.Second); err != nil {
		t.Errorf("%s: no new connection to %s: %v", when, to, err)
	}
}

// install puts zwrmd into a folder as an upgrade does: a whole file takes the name of
// the old one, which goes on running.
func install(t *testing.T, dir string) (path string) {
	t.Helper()
	path = filepath.Join(dir, "zwrmd")
	from, err := os.Open(zwrmtest.Binary(t, "zwrmd"))
	must(t, err)
	defer from.Close()
	to, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(to, from)
	must(t, err)
	must(t, to.Close())
	must(t, os.Rename(path+".new", path))
	return path
}

// TestLossIsSeen: a stream of which a packet is dropped says so. Else it would prove
// nothing that none was lost.
func TestLossIsSeen(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			h := zwrmtest.NewHost(t)
			s := zwrmtest.NewStream(t, network, h.Namespace, h.Outside, netip.AddrPortFrom(netip.MustParseAddr(zwrmtest.OutsideAddress), 7000))
			s.Flows(t, "before", 10)
			rule := strings.Fields("INPUT -p " + network + " --dport 7000 -m statistic --mode nth --every 20 --packet 0 -j DROP")
			zwrmtest.Run(t, h.Outside, "iptables", append([]string{"-A"}, rule...)...)
			s.Flows(t, "with losses", 100)
			zwrmtest.Run(t, h.Outside, "iptables", append([]string{"-D"}, rule...)...)
			failed := &recorder{TB: t}
			s.Lost(failed)
			if failed.errors == 0 {
				t.Error("no loss is reported")
			}
		})
	}
}

// recorder notes errors instead of reporting them.
type recorder struct {
	testing.TB
	errors int
}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors++
	r.Logf("as it must be: "+format, args...)
}

package trace_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/trace"
	"zwrm/internal/host"
	"zwrm/internal/ipam"
)

// oldFlags is what a kernel takes that knows no owners: it refuses the first, which no
// kernel has.
func oldFlags() []uint32 { return []uint32{0x80, 0} }

// packet returns one that a rule of ours accepts.
func (w *world) packet() trace.Packet {
	return trace.NewPacket(w.layout.Guest(1), w.layout.Guest(2), udp(9))
}

// inject has the packet received.
func (w *world) inject(ctx context.Context, packet trace.Packet) error {
	return w.kernel.Inject(ctx, "zvm1", packet.Frame(w.layout.GuestMAC(1), ipam.GatewayMAC()))
}

// onEachFlags runs a test with the table's flags of this kernel, and of an older one.
func onEachFlags(t *testing.T, test func(t *testing.T, flags []uint32)) {
	t.Run("owned", func(t *testing.T) { test(t, []uint32{trace.FlagOwner, 0}) })
	t.Run("without owners", func(t *testing.T) { test(t, oldFlags()) })
}

// Nothing is left behind, whether all goes well or not.
func TestNothingLeft(t *testing.T) {
	w := newWorld(t)
	applyIptables(t)
	before := state(t, w)
	why := errors.New("nothing is sent")
	onEachFlags(t, func(t *testing.T, flags []uint32) {
		packet := w.packet()
		probe := trace.Probe{Packet: packet, Device: "zvm1"}
		got, err := trace.RunWithFlags(t.Context(), nil, probe, func() error {
			if during := state(t, w); !strings.Contains(during, "table inet zwrm-trace {") {
				t.Errorf("the rules are\n%s", during)
			}
			return w.inject(t.Context(), packet)
		}, flags)
		if err != nil || got.Fate != trace.Sent || got.Deciding.Reason() != firewall.SameApp {
			t.Errorf("%s by %q, error %v", got.Fate, got.Deciding, err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		_, err = trace.RunWithFlags(ctx, nil, probe, func() error { cancel(why); return nil }, flags)
		if !errors.Is(err, why) {
			t.Errorf("given up before it was sent, error is %v", err)
		}
		ctx, cancel = context.WithCancelCause(t.Context())
		_, err = trace.RunWithFlags(ctx, nil, probe, func() error { cancel(why); return w.inject(ctx, packet) }, flags)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("given up while it was sent, error is %v", err)
		}
		if after := state(t, w); after != before {
			t.Errorf("left is\n%s, was\n%s", after, before)
		}
	})
}

// A packet that is not one, and ends before anything was done.
func TestRunRefused(t *testing.T) {
	w := newWorld(t)
	applyIptables(t)
	before := state(t, w)
	good := trace.NewPacket(w.layout.Guest(1), w.layout.Guest(2), udp(9))
	without, six := good, good
	without.ID, six.Dest = 0, netip.MustParseAddr("2001:db8::1")
	ended, end := context.WithCancel(t.Context())
	end()
	why := errors.New("nothing is sent")
	for _, test := range []struct {
		what   string
		ctx    context.Context
		packet trace.Packet
		want   error
	}{
		{"without identification", t.Context(), without, nil},
		{"IPv6", t.Context(), six, nil},
		{"given up", ended, good, context.Canceled},
		{"not sent", t.Context(), good, why},
	} {
		_, err := trace.Run(test.ctx, nil, trace.Probe{Packet: test.packet, Device: "zvm1"}, func() error { return why })
		if err == nil || test.want != nil && !errors.Is(err, test.want) || test.want == nil && errors.Is(err, why) {
			t.Errorf("%s: error is %v", test.what, err)
		}
	}
	if after := state(t, w); after != before {
		t.Errorf("left is\n%s, was\n%s", after, before)
	}
}

// The table is what it is said to be.
func TestTable(t *testing.T) {
	w := newWorld(t)
	applyIptables(t)
	const wantReceived = `table inet zwrm-trace {
	comment "zwrm trace"

	chain prerouting {
		type filter hook prerouting priority -350; policy accept;
		iifname "zvm1" ip id 4660 ip saddr 172.16.0.6 ip daddr 172.16.0.10 meta nftrace set 1
	}

	chain output {
		type filter hook output priority -350; policy accept;
	}

	chain input {
		type filter hook input priority 2147483646; policy accept;
	}

	chain postrouting {
		type filter hook postrouting priority 2147483646; policy accept;
	}
}
`
	wantSent := strings.NewReplacer(`		iifname "zvm1" ip id 4660 ip saddr 172.16.0.6 ip daddr 172.16.0.10 meta nftrace set 1
`, "", `output priority -350; policy accept;
`, `output priority -350; policy accept;
		ip id 4660 ip saddr 172.16.0.6 ip daddr 172.16.0.10 meta nftrace set 1
`).Replace(wantReceived)
	why := errors.New("nothing is sent")
	for device, want := range map[string]string{"zvm1": wantReceived, "": wantSent} {
		packet := w.packet()
		packet.ID = 0x1234
		_, err := trace.Run(t.Context(), nil, trace.Probe{Packet: packet, Device: device}, func() error {
			text := run(t, "", "nft", "list", "table", "inet", "zwrm-trace")
			if got := owner.ReplaceAllString(text, "{\n"); got != want {
				t.Errorf("the table is\n%s\nwant\n%s", got, want)
			}
			if out, err := exec.Command("nft", "delete", "table", "inet", "zwrm-trace").CombinedOutput(); err == nil {
				t.Errorf("somebody else deleted the table: %s", out)
			}
			return why
		})
		if !errors.Is(err, why) {
			t.Errorf("error is %v", err)
		}
	}
}

// Two at a time are not possible, and the second disturbs nothing.
func TestBusy(t *testing.T) {
	w := newWorld(t)
	applyIptables(t)
	packet, second := w.packet(), w.packet()
	got, err := trace.Run(t.Context(), nil, trace.Probe{Packet: packet, Device: "zvm1"}, func() error {
		_, err := trace.Run(t.Context(), nil, trace.Probe{Packet: second, Device: "zvm1"}, func() error { return w.inject(t.Context(), second) })
		if !errors.Is(err, trace.ErrBusy) {
			t.Errorf("error is %v", err)
		}
		return w.inject(t.Context(), packet)
	})
	if err != nil || got.Fate != trace.Sent {
		t.Errorf("%s, error %v", got.Fate, err)
	}
}

// A table of our name that is not ours stays.
func TestForeignTable(t *testing.T) {
	w := newWorld(t)
	applyIptables(t)
	run(t, "", "nft", "add", "table", "inet", "zwrm-trace")
	before := state(t, w)
	packet := w.packet()
	_, err := trace.Run(t.Context(), nil, trace.Probe{Packet: packet, Device: "zvm1"}, func() error { return w.inject(t.Context(), packet) })
	if err == nil || !strings.Contains(err.Error(), "nft delete table inet") {
		t.Errorf("error is %v", err)
	}
	if after := state(t, w); after != before {
		t.Errorf("left is\n%s, was\n%s", after, before)
	}
}

// tracerEnv makes TestTracer be a process that traces until it is killed; its value
// says with which flags of the table.
const tracerEnv = "ZWRM_TRACE_TEST_TRACER"

func TestTracer(t *testing.T) {
	flags := map[string][]uint32{"owned": {trace.FlagOwner}, "without owners": {0}}[os.Getenv(tracerEnv)]
	if flags == nil {
		return
	}
	kernel, err := host.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	packet := trace.NewPacket(netip.MustParseAddr("172.16.0.6"), netip.MustParseAddr("172.16.0.10"), udp(9))
	frame := packet.Frame(ipam.MAC{0x02, 0x5a, 172, 16, 0, 6}, ipam.GatewayMAC())
	_, err = trace.RunWithFlags(t.Context(), nil, trace.Probe{Packet: packet, Device: "zvm1"}, func() error {
		fmt.Println("sending")
		for {
			if err := kernel.Inject(t.Context(), "zvm1", frame); err != nil {
				return err
			}
		}
	}, flags)
	t.Fatal(err)
}

// A process that is killed in the middle leaves nothing, but on a kernel without
// owners of tables the table, which the next one takes away.
func TestKilled(t *testing.T) {
	w := newWorld(t)
	applyIptables(t)
	before := state(t, w)
	onEachFlags(t, func(t *testing.T, flags []uint32) {
		_, kind, _ := strings.Cut(t.Name(), "/")
		kill(t, strings.ReplaceAll(kind, "_", " "))
		if flags[0] != trace.FlagOwner {
			if left := state(t, w); !strings.Contains(left, "table inet zwrm-trace {") {
				t.Fatalf("left is\n%s", left)
			}
			packet := w.packet()
			got, err := trace.Run(t.Context(), nil, trace.Probe{Packet: packet, Device: "zvm1"}, func() error { return w.inject(t.Context(), packet) })
			if err != nil || got.Fate != trace.Sent {
				t.Errorf("%s, error %v", got.Fate, err)
			}
		}
		if after := state(t, w); after != before {
			t.Errorf("left is\n%s, was\n%s", after, before)
		}
	})
}

// kill kills a process that traces, while it does.
func kill(t *testing.T, flags string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestTracer$")
	cmd.Env = append(os.Environ(), tracerEnv+"="+flags)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "sending" {
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || lines.Text() != "sending" {
		t.Errorf("it ended before it was killed: %v", err)
	}
}

// state is all links, and all rules without their counters.
func state(t *testing.T, w *world) string {
	t.Helper()
	links, err := w.kernel.Links(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range links {
		names = append(names, l.Name)
	}
	return strings.Join(names, " ") + "\n" + run(t, "", "nft", "-s", "list", "ruleset")
}

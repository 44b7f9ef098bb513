package bench_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"zwrm/internal/client"
	"zwrm/internal/config"
	"zwrm/internal/wire"
	"zwrm/test/page"
	"zwrm/test/zwrmtest"
)

const (
	driftPage = "../../docs/drift.md"
	// changesAtOnce is how often a zwrmd is put to one change before another zwrmd is
	// begun: a few more, and it takes them for a fight.
	changesAtOnce = 4
	driftVMs      = 8     // those that changes are made to
	full          = 16384 // as many as a /16 holds
)

// spoiling is a change that somebody makes behind zwrmd's back.
type spoiling struct {
	what    string
	command string // %d is the number of a TAP
	object  string // that the event is about
	only    config.Dataplane
}

func spoilings() []spoiling {
	return []spoiling{
		{"TAP down", "ip link set zvm%d down", "link zvm%d", ""},
		{"TAP in another group", "ip link set zvm%d group 0x5a0fffff", "link zvm%d", ""},
		{"TAP renamed", "ip link set zvm%d name away", "link zvm%d", ""},
		{"TAP deleted", "ip link del zvm%d", "link zvm%d", ""},
		{"address removed", "ip address flush dev zvm%d", "link zvm%d", ""},
		{"route removed", "ip route flush dev zvm%d", "link zvm%d", ""},
		{"`rp_filter` of a TAP off", "sysctl -qw net.ipv4.conf.zvm%d.rp_filter=0", "link zvm%d", ""},
		{"`route_localnet` of a TAP on, of which the kernel does not tell", "sysctl -qw net.ipv4.conf.zvm%d.route_localnet=1", "link zvm%d", ""},
		{"`ip_forward` off", "sysctl -qw net.ipv4.ip_forward=0", "sysctl net/ipv4/ip_forward", ""},
		{"`zwrmd0` deleted", "ip link del zwrmd0", "bridge zwrmd0", ""},
		{"rule removed", "iptables -D ZWRM-FORWARD 1", "iptables filter ZWRM-FORWARD", config.Iptables},
		{"ZWRM-PRIVATE flushed", "iptables -F ZWRM-PRIVATE", "iptables filter ZWRM-PRIVATE", config.Iptables},
		{"all rules flushed", "nft flush ruleset", "iptables", config.Iptables},
	}
}

// mending is how long it took from the run of a command until its change was noticed,
// and until it was mended.
type mending struct{ noticed, mended time.Duration }

// BenchmarkDrift times how fast zwrmd notices and mends, with few VMs and with as many
// as a /16 holds. b.N is how many zwrmds each change is made to, a few times each.
func BenchmarkDrift(b *testing.B) {
	took := map[string]map[string][]mending{} // by change, then by column
	var columns []string
	for _, dataplane := range []config.Dataplane{config.Iptables, config.Nftables} {
		for _, vms := range []int{driftVMs, full} {
			column := fmt.Sprintf("%s, %s VMs", dataplane, page.Number(vms))
			columns = append(columns, column)
			b.Run(column, func(b *testing.B) { timeDrift(b, dataplane, vms, column, took) })
		}
	}
	kernel, err := page.Kernel()
	must(b, err)
	machine, err := page.Hardware(kernel)
	must(b, err)
	text := driftText(machine, columns, took)
	b.Log("\n" + text)
	if *update {
		must(b, page.Write(driftPage, text))
	}
}

func timeDrift(b *testing.B, dataplane config.Dataplane, vms int, column string, took map[string]map[string][]mending) {
	h := zwrmtest.NewHost(b)
	d := h.NewDaemon(b, zwrmtest.Settings{"network.bridge.enabled": "true", "network.firewall": fmt.Sprintf("%q", dataplane)})
	zwrmtest.Fill(b, d.Database, vms, 10)
	b.Cleanup(func() { h.DeleteTAPs(b) })
	for _, s := range spoilings() {
		if s.only != "" && s.only != dataplane {
			continue
		}
		if took[s.what] == nil {
			took[s.what] = map[string][]mending{}
		}
		for range b.N {
			d.Start(b)
			follow := followEvents(b, d.Client(b))
			for i := range changesAtOnce {
				took[s.what][column] = append(took[s.what][column], spoil(b, h, follow, s, i))
			}
			d.Kill()
		}
	}
	b.ReportMetric(0, "ns/op") // of no meaning
}

// spoil makes a change and waits until it is mended.
func spoil(b *testing.B, h *zwrmtest.Host, events <-chan wire.Event, s spoiling, i int) mending {
	b.Helper()
	command, object := s.command, s.object
	if strings.Contains(command, "%d") {
		command, object = fmt.Sprintf(command, i), fmt.Sprintf(object, i)
	}
	words := strings.Fields(command)
	began := time.Now()
	h.Run(b, words[0], words[1:]...)
	timeout := time.After(time.Minute)
	for {
		select {
		case e := <-events:
			if e.Kind == "repair" && strings.HasPrefix(e.Object, object) && e.At.After(began) {
				mended := e.At.Sub(began)
				return mending{max(0, mended-time.Duration(e.TookMS*float64(time.Millisecond))), mended}
			}
		case <-timeout:
			b.Fatalf("%s: not mended after a minute", command)
		}
	}
}

// followEvents returns what happens from now on.
func followEvents(b *testing.B, c *client.Client) <-chan wire.Event {
	b.Helper()
	events := make(chan wire.Event, 4096)
	ctx, cancel := context.WithCancel(b.Context())
	b.Cleanup(cancel)
	go func() {
		_ = c.FollowEvents(ctx, func(e wire.Event) error { // it ends when zwrmd does
			events <- e
			return nil
		})
	}()
	return events
}

// driftText returns the figures in Markdown.
func driftText(machine string, columns []string, took map[string]map[string][]mending) string {
	table := [][]string{append([]string{""}, columns...)}
	rounds := 0
	for _, s := range spoilings() {
		cells := []string{s.what}
		for _, column := range columns {
			all := took[s.what][column]
			if len(all) == 0 {
				cells = append(cells, "refused by the kernel")
				continue
			}
			rounds = len(all)
			cells = append(cells, fmt.Sprintf("%s · %s · %s", middle(all, func(m mending) time.Duration { return m.noticed }),
				middle(all, func(m mending) time.Duration { return m.mended }), milli(slices.MaxFunc(all, byMended).mended)))
		}
		table = append(table, cells)
	}
	return fmt.Sprintf("Taken on: %s.\n\nMilliseconds from the run of the command that makes the change: noticed (median) · mended (median) · mended (longest of %d).\n\n", machine, rounds) + page.Table(table)
}

func byMended(a, b mending) int { return int(a.mended - b.mended) }

func middle(all []mending, of func(mending) time.Duration) string {
	var times []time.Duration
	for _, m := range all {
		times = append(times, of(m))
	}
	slices.Sort(times)
	return milli(times[len(times)/2])
}

func milli(d time.Duration) string { return fmt.Sprintf("%.0f", milliseconds(d)) }

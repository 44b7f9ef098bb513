package measure

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"zwrm/bench/report"
	"zwrm/test/zwrmtest"
)

// guide is the recipe of Firecracker's network guide (docs/network-setup.md), by the
// programs that people type: a TAP with a /30, and two rules. It leaves out sudo.
type guide struct {
	host *zwrmtest.Host
	nft  bool
}

// newGuide makes a host with what the guide sets up once.
func newGuide(t testing.TB, nft bool) *guide {
	t.Helper()
	g := &guide{zwrmtest.NewHost(t), nft}
	t.Cleanup(func() { deleteLinks(t, g.host.Namespace, "tap") })
	g.host.Set(t, "net/ipv4/ip_forward", "1")
	if nft {
		g.run(t, "nft add table firecracker")
		g.run(t, "nft add chain firecracker postrouting { type nat hook postrouting priority srcnat; policy accept; }")
		g.run(t, "nft add chain firecracker filter { type filter hook forward priority filter; policy accept; }")
	} else {
		g.run(t, "iptables-nft -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
	}
	return g
}

func (g *guide) name() string {
	if g.nft {
		return report.GuideNftables
	}
	return report.GuideIptables
}

func (g *guide) pooled() bool { return false }

func (g *guide) attach(t testing.TB, n int) time.Duration {
	t.Helper()
	commands := []string{
		fmt.Sprintf("ip tuntap add tap%d mode tap", n),
		fmt.Sprintf("ip addr add %s dev tap%d", block(n), n),
		fmt.Sprintf("ip link set tap%d up", n),
	}
	guest := block(n).Addr().Next()
	if g.nft {
		commands = append(commands,
			fmt.Sprintf("nft add rule firecracker postrouting ip saddr %s oifname %s counter masquerade", guest, zwrmtest.Uplink),
			fmt.Sprintf("nft add rule firecracker filter iifname tap%d oifname %s accept", n, zwrmtest.Uplink))
	} else {
		commands = append(commands, "iptables-nft -t nat -A "+natRule(n), "iptables-nft -A "+forwardRule(n))
	}
	return g.run(t, commands...)
}

func (g *guide) detach(t testing.TB, n int) time.Duration {
	t.Helper()
	took := g.run(t, fmt.Sprintf("ip link del tap%d", n))
	if !g.nft {
		return took + g.run(t, "iptables-nft -t nat -D "+natRule(n), "iptables-nft -D "+forwardRule(n))
	}
	// nft deletes by the number of a rule, which it tells.
	start := time.Now()
	list := g.host.Run(t, "nft", "-a", "list", "table", "firecracker")
	took += time.Since(start)
	for chain, rule := range map[string]string{"postrouting": fmt.Sprintf("saddr %s oifname", block(n).Addr().Next()), "filter": fmt.Sprintf("iifname \"tap%d\" ", n)} {
		match := regexp.MustCompile(regexp.QuoteMeta(rule) + `.* # handle (\d+)`).FindStringSubmatch(list)
		if match == nil {
			t.Fatalf("nft lists no rule with %q:\n%s", rule, list)
		}
		took += g.run(t, fmt.Sprintf("nft delete rule firecracker %s handle %s", chain, match[1]))
	}
	return took
}

func natRule(n int) string {
	return fmt.Sprintf("POSTROUTING -o %s -s %s -j MASQUERADE", zwrmtest.Uplink, block(n).Addr().Next())
}

func forwardRule(n int) string {
	return fmt.Sprintf("FORWARD -i tap%d -o %s -j ACCEPT", n, zwrmtest.Uplink)
}

// run runs programs one after the other on the host and returns how long they took.
func (g *guide) run(t testing.TB, commands ...string) (took time.Duration) {
	t.Helper()
	g.host.Do(t, func() {
		start := time.Now()
		for _, command := range commands {
			words := strings.Fields(command)
			if out, err := exec.CommandContext(t.Context(), words[0], words[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", command, err, out)
			}
		}
		took = time.Since(start)
	})
	return took
}

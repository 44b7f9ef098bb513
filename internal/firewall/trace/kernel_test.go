package trace_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/trace"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// want is what a test expects of a Result.
type want struct {
	fate   trace.Fate
	reason firewall.Reason
	hook   trace.Hook // of the deciding rule
	out    string     // device
	masked bool
}

func (w *world) check(t *testing.T, got trace.Result, want want) {
	t.Helper()
	out := 0
	if want.out != "" {
		out = w.link(t, want.out).Index
	}
	d := got.Deciding
	if got.Fate != want.fate || d.Reason() != want.reason || d.Hook != want.hook || got.Out != out || got.Masqueraded != want.masked {
		t.Errorf("%s by %q (%s) to device %d, masqueraded %t; want %+v; steps are\n%s", got.Fate, d, d.Hook, got.Out, got.Masqueraded, want, steps(got))
	}
	if d != (trace.Step{}) && !slices.Contains(got.Steps, d) {
		t.Errorf("the deciding step %q is none of\n%s", d, steps(got))
	}
}

func steps(r trace.Result) string {
	var b strings.Builder
	for _, s := range r.Steps {
		b.WriteString(string(s.Hook) + " " + s.String() + "\n")
	}
	return b.String()
}

// Each packet that a guest can send is decided by the rule that is meant for it.
func TestFromVM(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		own, ping := w.layout.Guest(1).String(), model.Service{}
		right, other := w.layout.GuestMAC(1), w.layout.GuestMAC(2)
		for _, test := range []struct {
			what         string
			source, dest string
			service      model.Service
			mac          ipam.MAC
			want         want
		}{
			{"same app, ping", own, "172.16.0.10", ping, right, want{trace.Sent, firewall.SameApp, trace.Forward, "zvm2", false}},
			{"same app, TCP", own, "172.16.0.10", tcp(80), right, want{trace.Sent, firewall.SameApp, trace.Forward, "zvm2", false}},
			{"same app, UDP", own, "172.16.0.10", udp(53), right, want{trace.Sent, firewall.SameApp, trace.Forward, "zvm2", false}},
			{"other app", own, "172.16.0.14", tcp(80), right, want{trace.Dropped, firewall.OtherApp, trace.Forward, "", false}},
			{"no such VM", own, "172.16.200.2", tcp(80), right, want{trace.Dropped, firewall.Unowned, trace.Forward, "", false}},
			{"denied", own, "169.254.169.254", tcp(80), right, want{trace.Dropped, firewall.EgressDenied, trace.Forward, "", false}},
			{"the internet", own, "198.51.100.9", tcp(443), right, want{trace.Sent, firewall.Internet, trace.Forward, "eth0", true}},
			{"the internet, ping", own, outsideAddress, ping, right, want{trace.Sent, firewall.Internet, trace.Forward, "eth0", true}},
			{"the gateway, ping", own, "172.16.0.5", ping, right, want{trace.Delivered, firewall.Ping, trace.Input, "", false}},
			{"the gateway, listed", own, "172.16.0.5", tcp(8080), right, want{trace.Delivered, firewall.HostAccess, trace.Input, "", false}},
			{"the gateway, not listed", own, "172.16.0.5", tcp(22), right, want{trace.Dropped, firewall.HostClosed, trace.Input, "", false}},
			{"the host", own, hostAddress, tcp(8080), right, want{trace.Dropped, firewall.HostClosed, trace.Input, "", false}},
			{"from another guest's address", "172.16.0.10", "172.16.0.14", tcp(80), right, want{trace.Dropped, firewall.Spoofed, trace.Prerouting, "", false}},
			{"from the gateway's address", "172.16.0.5", "172.16.0.10", tcp(80), right, want{trace.Dropped, firewall.Spoofed, trace.Prerouting, "", false}},
			{"from another's Ethernet address", own, "172.16.0.10", tcp(80), other, want{trace.Dropped, firewall.SpoofedMAC, trace.Prerouting, "", false}},
			{"to a group", own, "224.0.0.251", udp(5353), right, want{trace.Dropped, firewall.Multicast, trace.Prerouting, "", false}},
		} {
			t.Run(test.what, func(t *testing.T) {
				packet := trace.NewPacket(netip.MustParseAddr(test.source), netip.MustParseAddr(test.dest), test.service)
				w.check(t, w.received(t, "zvm1", packet, test.mac), test.want)
			})
		}
		w.group(t, 1, model.GroupUnassigned)
		t.Run("closed", func(t *testing.T) {
			w.check(t, w.fromVM(t, 1, outsideAddress, tcp(80)), want{trace.Dropped, firewall.Unassigned, trace.Prerouting, "", false})
		})
	})
}

// What others send is decided by our rules as far as it concerns VMs.
func TestFromElsewhere(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		mac := ipam.MAC{2, 0, 0, 0, 0, 9}
		from := func(source, dest string) trace.Result {
			return w.received(t, "eth0", trace.NewPacket(netip.MustParseAddr(source), netip.MustParseAddr(dest), tcp(80)), mac)
		}
		w.check(t, from(outsideAddress, "172.16.0.6"), want{trace.Dropped, firewall.Unpublished, trace.Forward, "", false})
		w.check(t, from(outsideAddress, hostAddress), want{fate: trace.Delivered})
		w.check(t, w.fromHost(t, "172.16.0.6"), want{trace.Sent, firewall.FromHost, trace.Output, "zvm1", false})
		w.check(t, w.fromHost(t, outsideAddress), want{fate: trace.Sent, out: "eth0"})
		w.check(t, w.fromHost(t, hostAddress), want{fate: trace.Sent, out: "lo"})

		// The kernel, and no rule.
		w.check(t, from("127.0.0.1", "172.16.0.6"), want{fate: trace.Lost})
		if err := w.kernel.SetSysctl("net/ipv4/ip_forward", "0"); err != nil {
			t.Fatal(err)
		}
		w.check(t, from(outsideAddress, "172.16.0.6"), want{fate: trace.Lost})
	})
}

// Rules of others are told by their table and chain.
func TestForeignRules(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		for _, test := range []struct {
			what, nft string
			fate      trace.Fate
			decided   string
		}{
			{"a rule", `table inet theirs {
				chain wall {
					type filter hook forward priority 10
					tcp dport 443 counter drop comment "no https"
				}
			}`, trace.Dropped, `inet theirs wall: rule 2 "no https": drop`},
			{"a rule without comment", `table ip theirs {
				chain early {
					type filter hook prerouting priority -310
					jump deep
				}
				chain deep {
					reject
				}
			}`, trace.Dropped, `ip theirs deep: rule 4: drop`},
			{"a policy", `table inet theirs {
				chain wall {
					type filter hook forward priority -10; policy drop
				}
			}`, trace.Dropped, `inet theirs wall: policy: drop`},
			{"a rule that accepts", `table inet theirs {
				chain wall {
					type filter hook forward priority 10
					accept comment "zwrm: forged"
				}
			}`, trace.Sent, ``},
			{"before all rules", `table netdev theirs {
				chain wall {
					type filter hook ingress device zvm1 priority 0; policy drop
				}
			}`, trace.Unseen, ``},
		} {
			t.Run(test.what, func(t *testing.T) {
				run(t, test.nft, "nft", "-f", "-")
				defer func() { run(t, "", "nft", "delete", "table", strings.Fields(test.nft)[1], "theirs") }()
				got := w.fromVM(t, 1, outsideAddress, tcp(443))
				switch {
				case got.Fate != test.fate:
					t.Errorf("%s by %q; steps are\n%s", got.Fate, got.Deciding, steps(got))
				case test.fate == trace.Dropped && (got.Deciding.String() != test.decided || got.Deciding.Ours() || got.Deciding.Reason() != ""):
					t.Errorf("dropped by %q, want %q", got.Deciding, test.decided)
				case test.fate == trace.Sent && got.Deciding.Reason() != firewall.Internet:
					t.Errorf("the rule that decided is %q", got.Deciding)
				}
			})
		}
		t.Run("a program", func(t *testing.T) {
			const rule = "FORWARD -p tcp --dport 443 -m comment --comment inspected -j NFQUEUE --queue-num 7"
			run(t, "", "iptables-nft", strings.Fields("-t mangle -A "+rule)...)
			defer run(t, "", "iptables-nft", strings.Fields("-t mangle -D "+rule)...)
			got := w.fromVM(t, 1, outsideAddress, tcp(443))
			if got.Fate != trace.Taken || got.Deciding.Table != "mangle" || got.Deciding.Comment != "inspected" {
				t.Errorf("%s by %q; steps are\n%s", got.Fate, got.Deciding, steps(got))
			}
		})
	})
}

// Steps is the whole way.
func TestSteps(t *testing.T) {
	wants := map[string]string{
		"nftables": `prerouting inet zwrm prerouting: rule "zwrm: from-vm": jump guest
prerouting inet zwrm guest: rule "zwrm: vm-to-vm": continue
prerouting inet zwrm guest: end of chain: return
prerouting inet zwrm prerouting: policy: accept
forward inet zwrm forward: rule "zwrm: app": accept
`,
		"iptables": `prerouting ip raw PREROUTING: rule "zwrm: hook": jump ZWRM-RAW
prerouting ip raw ZWRM-RAW: rule "zwrm: from-vm": jump ZWRM-GUEST
prerouting ip raw ZWRM-GUEST: end of chain: return
prerouting ip raw ZWRM-RAW: end of chain: return
prerouting ip raw PREROUTING: policy: accept
forward ip filter FORWARD: rule "zwrm: hook": jump ZWRM-FORWARD
forward ip filter ZWRM-FORWARD: rule "zwrm: vm-to-vm": jump ZWRM-PRIVATE
forward ip filter ZWRM-PRIVATE: rule "zwrm: app web": accept
postrouting ip nat POSTROUTING: rule "zwrm: hook": jump ZWRM-NAT
postrouting ip nat ZWRM-NAT: end of chain: return
postrouting ip nat POSTROUTING: policy: accept
`}
	onBoth(t, func(t *testing.T, w *world) {
		got := w.fromVM(t, 1, "172.16.0.10", tcp(80))
		text := handles.ReplaceAllString(steps(got), `rule "`)
		if _, dataplane, _ := strings.Cut(t.Name(), "/"); text != wants[dataplane] {
			t.Errorf("steps are\n%s\nwant\n%s", text, wants[dataplane])
		}
	})
}

// What others trace at the same time is not taken for ours.
func TestOthersTrace(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		run(t, `table inet theirs {
			chain marking {
				type filter hook prerouting priority -390
				meta nftrace set 1
			}
		}`, "nft", "-f", "-")
		noise := func() {
			packet := trace.NewPacket(w.layout.Guest(1), w.layout.Guest(3), udp(9))
			if err := w.kernel.Inject(t.Context(), "zvm1", packet.Frame(w.layout.GuestMAC(1), ipam.GatewayMAC())); err != nil {
				t.Fatal(err)
			}
		}
		packet := trace.NewPacket(w.layout.Guest(1), w.layout.Guest(2), udp(9))
		got, err := trace.Run(t.Context(), nil, trace.Probe{Packet: packet, Device: "zvm1"}, func() error {
			noise()
			defer noise()
			return w.kernel.Inject(t.Context(), "zvm1", packet.Frame(w.layout.GuestMAC(1), ipam.GatewayMAC()))
		})
		if err != nil {
			t.Fatal(err)
		}
		w.check(t, got, want{trace.Sent, firewall.SameApp, trace.Forward, "zvm2", false})
	})
}

// Without rules of ours in nf_tables the kernel tells nothing of any use.
func TestLegacy(t *testing.T) {
	w := newWorld(t)
	variant(t, "legacy")
	sent := false
	try := func() error {
		packet := trace.NewPacket(w.layout.Guest(1), w.layout.Guest(2), udp(9))
		_, err := trace.Run(t.Context(), nil, trace.Probe{Packet: packet, Device: "zvm1"}, func() error { sent = true; return nil })
		return err
	}
	run(t, "table inet theirs {\nchain c {\n}\n}\n", "nft", "-f", "-")
	if err := try(); !errors.Is(err, trace.ErrLegacy) {
		t.Errorf("without rules, error is %v", err)
	}
	d := applyIptables(t)
	if !strings.Contains(d.Version(), "legacy") {
		t.Fatalf("the rules are kept by %q", d.Version())
	}
	defer func() {
		if err := d.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if err := try(); !errors.Is(err, trace.ErrLegacy) || sent {
		t.Errorf("with rules, error is %v, sent %t", err, sent)
	}
}

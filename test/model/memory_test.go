package model_test

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/firewalltest"
	"zwrm/internal/host"
	"zwrm/internal/host/hosttest"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/plan"
	"zwrm/internal/reconcile"
)

// memory is a kernel in memory.
type memory struct {
	*hosttest.Fake
	chains *firewalltest.Kernel
	seam   *seam
	stray  string // link that is named like ours; empty: none
}

func newMemory(t *rapid.T, seam *seam) site {
	m := &memory{seam: seam, stray: rapid.SampledFrom([]string{"", "zvm9999"}).Draw(t, "stray")}
	must(t, m.reboot())
	return m
}

// reboot leaves what others have on the host.
func (m *memory) reboot() error {
	m.Fake, m.chains = hosttest.NewFake(), firewalltest.NewKernel()
	m.Fail = m.seam.pass // each link of several is an effect of its own
	links := []host.Link{
		{Name: uplink, Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}},
		{Name: "docker0", Kind: host.KindBridge, Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("172.17.0.1/16")}},
		{Name: "tap0", Kind: host.KindTAP, Group: 7, Up: true},
	}
	if m.stray != "" {
		links = append(links, host.Link{Name: m.stray, Kind: host.KindTAP, Up: true})
	}
	for _, link := range links {
		if err := m.AddLink(link); err != nil {
			return err
		}
	}
	other := netip.MustParseAddr("172.17.0.2")
	if err := m.AddFlow(hosttest.Flow{Src: other, Dst: other, ReplySrc: other, ReplyDst: other}); err != nil {
		return err
	}
	if err := m.AddNeighbour("docker0", other); err != nil {
		return err
	}
	return m.AddRoute(host.Route{Dest: netip.MustParsePrefix("0.0.0.0/0"), Device: uplink})
}

func (m *memory) kernel() kernel { return m.Fake }

func (m *memory) plug(tap string) (io.Closer, error) { return m.OpenTAP(tap) }

func (m *memory) open() (reconcile.Kernel, func() error, error) {
	return reconcile.Kernel{Links: m.Fake, Settings: m.Fake, Firewall: m.chains.Open()}, func() error { return nil }, nil
}

func (m *memory) rules() (string, []model.Group, error) {
	var groups []model.Group
	for _, rule := range m.chains.Rules() {
		if rule.App != "" {
			groups = append(groups, rule.From.Group)
		}
	}
	return m.chains.Dump(), groups, nil
}

// foreign returns the lines of the dump that are about nothing of ours.
func (m *memory) foreign() (string, error) {
	var kept []string
	mine := false
	within := netip.MustParsePrefix(subnet)
	for line := range strings.Lines(m.Dump()) {
		words := strings.Fields(line)
		switch {
		case words[0] == "link":
			_, tap := ipam.ParseTAP(words[1])
			mine = tap && words[1] != m.stray || words[1] == "zwrmd0"
		case strings.HasPrefix(line, "\t"): // of the link above
		default:
			mine = words[0] == "sysctl" || slices.ContainsFunc(words, func(word string) bool {
				address, err := netip.ParseAddr(strings.TrimSuffix(word, ","))
				return err == nil && within.Contains(address)
			})
		}
		// Each link follows the host's forwarding.
		if !mine && !strings.Contains(line, "forwarding") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, ""), nil
}

func (m *memory) strays() []string {
	if m.stray == "" {
		return nil
	}
	return []string{m.stray}
}

// traffic is a connection to the internet and an answer to the host's ARP.
func (m *memory) traffic(vm model.VM, guest netip.Addr) error {
	far, near := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("192.0.2.1")
	if err := m.AddFlow(hosttest.Flow{Src: guest, Dst: far, ReplySrc: far, ReplyDst: near}); err != nil {
		return err
	}
	return m.AddNeighbour(vm.Slot.TAP(), guest)
}

func (m *memory) traces() ([]string, error) { return m.Remembered() }

// change returns a drift of a link.
func (m *memory) change(how func(*host.Link)) drift {
	return func(_ *rapid.T, tap string) bool { return m.ChangeLink(tap, how) }
}

// drifts returns what others may do to us.
func (m *memory) drifts() map[string]drift {
	chains := func(how func(t *rapid.T, rules []firewall.Rule) []firewall.Rule) drift {
		return func(t *rapid.T, _ string) bool {
			before := m.chains.Dump()
			m.chains.Change(func(rules []firewall.Rule) []firewall.Rule { return how(t, slices.Clone(rules)) })
			return m.chains.Dump() != before
		}
	}
	place := func(t *rapid.T, rules []firewall.Rule) int { return rapid.IntRange(0, len(rules)-1).Draw(t, "rule") }
	return map[string]drift{
		"TAP deleted":      func(_ *rapid.T, tap string) bool { return m.RemoveLink(tap) },
		"TAP down":         m.change(func(l *host.Link) { l.Up = false }),
		"TAP of MTU 1400":  m.change(func(l *host.Link) { l.MTU = 1400 }),
		"TAP of other MAC": m.change(func(l *host.Link) { l.MAC = ipam.MAC{2} }),
		"address removed":  m.change(func(l *host.Link) { l.Addresses = nil }),
		"address added":    m.change(func(l *host.Link) { l.Addresses = append(l.Addresses, netip.MustParsePrefix("198.18.0.1/32")) }),
		"TAP unassigned":   m.regroup(model.GroupUnassigned),
		"TAP in other app": m.regroup(model.GroupUnassigned + 0xffff),
		"rp_filter off":    func(_ *rapid.T, tap string) bool { return m.SetSysctl("net/ipv4/conf/"+tap+"/rp_filter", "0") == nil },
		"forwarding off":   func(*rapid.T, string) bool { return m.SetSysctl("net/ipv4/ip_forward", "0") == nil },
		"bridge deleted":   func(*rapid.T, string) bool { return m.RemoveLink("zwrmd0") },
		"bridge down":      func(*rapid.T, string) bool { return m.ChangeLink("zwrmd0", func(l *host.Link) { l.Up = false }) },
		"bridge of old": func(*rapid.T, string) bool {
			return m.EnsureBridge(context.Background(), "old0", netip.MustParsePrefix("10.1.0.1/16"), plan.BridgeAlias) == nil
		},
		"TAP of no VM": func(t *rapid.T, _ string) bool {
			slot := ipam.Slot(rapid.IntRange(0, 20).Draw(t, "slot")) // some lie outside the subnet
			return m.AddLink(host.Link{Name: slot.TAP(), Kind: host.KindTAP, Group: model.GroupUnassigned + 1, Up: true}) == nil
		},
		"rules flushed": chains(func(*rapid.T, []firewall.Rule) []firewall.Rule { return nil }),
		"rule removed":  chains(func(t *rapid.T, r []firewall.Rule) []firewall.Rule { i := place(t, r); return slices.Delete(r, i, i+1) }),
		"rule doubled": chains(func(t *rapid.T, r []firewall.Rule) []firewall.Rule {
			i := place(t, r)
			return slices.Insert(r, i, r[i])
		}),
		"rules in disorder": chains(func(t *rapid.T, r []firewall.Rule) []firewall.Rule {
			i := place(t, r)
			r[0], r[i] = r[i], r[0]
			return r
		}),
		"rule of no app": chains(func(t *rapid.T, r []firewall.Rule) []firewall.Rule {
			return slices.Insert(r, place(t, r), firewall.AppRule(firewall.App{Name: "nobody", Group: model.GroupUnassigned + 0xfffe}))
		}),
	}
}

func (m *memory) regroup(group model.Group) drift {
	return func(_ *rapid.T, tap string) (changed bool) {
		m.ChangeLink(tap, func(l *host.Link) { changed, l.Group = l.Group != group, group })
		return changed
	}
}

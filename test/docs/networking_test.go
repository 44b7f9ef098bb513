package docs_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/test/zwrmtest"
)

var update = flag.Bool("update", false, "write the page instead of comparing with it")

func TestMain(m *testing.M) { zwrmtest.Main(m) }

const page = "../../docs/networking.md"

// TestNetworkingPage takes every listing of the page from a host as the page
// describes it.
func TestNetworkingPage(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	listings := takeListings(t)
	var used []string
	block := regexp.MustCompile(`(?s)<!-- generated: (\S+) -->\n.*?<!-- end -->`)
	fresh := block.ReplaceAllStringFunc(string(text), func(old string) string {
		name := block.FindStringSubmatch(old)[1]
		listing, ok := listings[name]
		if !ok {
			t.Errorf("the page wants a listing %q, which there is not", name)
			return old
		}
		used = append(used, name)
		return fmt.Sprintf("<!-- generated: %s -->\n```text\n%s```\n<!-- end -->", name, listing)
	})
	for name := range listings {
		if !slices.Contains(used, name) {
			t.Errorf("the page does not show the listing %q", name)
		}
	}
	if *update {
		if err := os.WriteFile(page, []byte(fresh), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if fresh != string(text) {
		t.Errorf("%s differs from a live host (make golden writes it anew):\n%s", page, difference(string(text), fresh))
	}
}

// takeListings runs the host of the page and returns what it shows, by name.
func takeListings(t *testing.T) map[string]string {
	t.Helper()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, zwrmtest.Settings{"network.bridge.enabled": "true", "network.host_access": `["udp/53"]`})
	s := shell{t, h, d}
	listings := map[string]string{"attach": s.enter("zwrm attach web-0 --app web")}
	vms := d.VMs(t)
	for _, name := range []string{"web-1", "db-0", "db-1"} {
		app, _, _ := strings.Cut(name, "-")
		vms = append(vms, d.Attach(t, name, app))
	}
	for _, vm := range vms {
		h.Guest(t, vm)
		s.await("ip -br link show "+vm.TAP, "UP")
	}
	for name, commands := range commands() {
		listings[name] = s.enter(commands...)
	}
	listings["settings"] = s.settings()
	listings["capacity"] = capacities(t)
	listings["flows"] = flows(t)
	listings["events"] = s.enter("iptables -F ZWRM-PRIVATE")
	s.await("zwrm events", "repair")
	listings["events"] += "\n" + s.enter("zwrm events", "zwrm network check")
	d.Stop(t)
	listings["stopped"] = s.enter("iptables-save | grep -c ZWRM", "ip6tables-save | grep -c ZWRM", "ip -br link show group 0x5a000000")
	return listings
}

// commands are the listings that are what commands print.
func commands() map[string][]string {
	return map[string][]string{
		"routes": {"ip route"},
		"link":   {"ip -d link show zvm0"},
		"group":  {"zwrm apps", "ip -br link show group 0x5a000001"},
		"hooks": {"iptables -t raw -S PREROUTING", "iptables -S FORWARD", "iptables -S INPUT", "iptables -S OUTPUT",
			"iptables -t nat -S POSTROUTING"},
		"raw":     {"iptables -t raw -S ZWRM-RAW", "iptables -t raw -S ZWRM-GUEST"},
		"forward": {"iptables -S ZWRM-FORWARD"},
		"private": {"iptables -S ZWRM-PRIVATE"},
		"input":   {"iptables -S ZWRM-INPUT"},
		"output":  {"iptables -S ZWRM-OUTPUT"},
		"nat":     {"iptables -t nat -S ZWRM-NAT"},
		"ipv6":    {"ip6tables -t raw -S ZWRM-RAW", "ip6tables -S ZWRM-FORWARD", "ip6tables -S ZWRM-OUTPUT"},
		"bridge":  {"ip -4 -br address show zwrmd0", "ip link show master zwrmd0"},
		"status":  {"zwrm network status"},
	}
}

// shell runs commands as an operator types them.
type shell struct {
	t *testing.T
	h *zwrmtest.Host
	d *zwrmtest.Daemon
}

// enter returns the commands and what they print.
func (s shell) enter(commands ...string) string {
	s.t.Helper()
	var out strings.Builder
	for i, command := range commands {
		if i > 0 {
			out.WriteString("\n")
		}
		out.WriteString("$ " + command + "\n" + normal(s.run(command)))
	}
	return out.String()
}

func (s shell) run(command string) string {
	s.t.Helper()
	words := strings.Fields(command)
	if words[0] == "zwrm" {
		return s.d.Zwrm(s.t, words[1:]...).Stdout // check fails when there is drift
	}
	return zwrmtest.Try(s.t, s.h.Namespace, "sh", "-c", command).Stdout // grep -c fails when it counts 0
}

// await waits until a command prints a word. The kernel notices a VMM on a TAP, and
// its end, a moment later.
func (s shell) await(command, word string) {
	s.t.Helper()
	for range 1000 {
		if slices.Contains(strings.Fields(s.run(command)), word) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Fatalf("%s does not print %q: %s", command, word, s.run(command))
}

// normal takes out what differs from machine to machine: numbers of links, what the
// machine's kernel, iproute2 and QEMU add.
func normal(text string) string {
	for _, r := range []struct{ from, to string }{
		{`(?m)^\d+: `, ""},
		{` qdisc \S+`, ""},
		{` promiscuity .*`, ""},
		{` addrgenmode .*`, ""},
		{`(?m) +$`, ""},
		{`qemu \((kvm|tcg)\)`, "qemu (kvm)"},
		{`(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`, "2026-07-01T12:00:00Z"},
		{`by iptables \(\d+\), mended after \S+`, "by iptables (4711), mended after 130ms"},
	} {
		text = regexp.MustCompile(r.from).ReplaceAllString(text, r.to)
	}
	return text
}

// settings returns those of a TAP as sysctl prints them.
func (s shell) settings() string {
	s.t.Helper()
	var names []string
	for _, setting := range host.TAPSettings() {
		names = append(names, strings.ReplaceAll(setting.Sysctl("zvm0"), "/", "."))
	}
	return s.h.Run(s.t, "sysctl", names...)
}

// capacities returns a table of how many VMs a subnet holds.
func capacities(t *testing.T) string {
	t.Helper()
	out := "subnet           VMs\n"
	for _, bits := range []int{16, 18, 20, 22, 24, 26, 28, 30} {
		subnet := netip.PrefixFrom(netip.MustParseAddr("172.16.0.0"), bits)
		layout, err := ipam.NewLayout(subnet)
		if err != nil {
			t.Fatal(err)
		}
		out += fmt.Sprintf("%-13s  %5d\n", subnet, layout.Capacity())
	}
	return out
}

// flows returns the table that the tests of flows try.
func flows(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../flow/testdata/flows.txt")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// difference returns the first lines that differ.
func difference(old, fresh string) string {
	before, after := strings.Split(old, "\n"), strings.Split(fresh, "\n")
	for i := range min(len(before), len(after)) {
		if before[i] != after[i] {
			return fmt.Sprintf("line %d is\n%s\nand should be\n%s", i+1, before[i], after[i])
		}
	}
	return fmt.Sprintf("it has %d lines and should have %d", len(before), len(after))
}

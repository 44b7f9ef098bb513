package zwrmtest

import (
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"zwrm/internal/host/nstest"
)

// What a Host looks like from outside (addresses of RFC 5737).
const (
	Uplink         = "eth0"
	HostAddress    = "192.0.2.1"
	OutsideAddress = "192.0.2.2"
	uplinkNetwork  = "/24"
)

// Host is a machine of its own: a network namespace whose eth0 leads to Outside.
type Host struct {
	*nstest.Namespace
	Outside *nstest.Namespace // the internet: the host's default route leads there
	Dir     string            // for files; short, since it holds Unix sockets
}

// NewHost makes a host and the internet behind it. The internet has a route to the
// default subnet of VMs by the host, so that only the host's rules keep it out.
func NewHost(t testing.TB) *Host {
	t.Helper()
	h := &Host{Namespace: nstest.New(t), Outside: nstest.New(t), Dir: TempDir(t)}
	h.Set(t, "net/ipv4/ip_forward", "0") // else it is as on the machine
	nstest.Veth(t, h.Namespace, Uplink, h.Outside, Uplink)
	for _, end := range []struct {
		*nstest.Namespace
		address string
	}{{h.Namespace, HostAddress}, {h.Outside, OutsideAddress}} {
		// Neighbour discovery would make two looks at one host differ.
		end.Set(t, "net/ipv6/conf/"+Uplink+"/disable_ipv6", "1")
		end.Address(t, Uplink, netip.MustParsePrefix(end.address+uplinkNetwork))
	}
	h.Route(t, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr(OutsideAddress))
	h.Outside.Route(t, netip.MustParsePrefix("172.16.0.0/16"), netip.MustParseAddr(HostAddress))
	return h
}

// TempDir is nstest.TempDir.
func TempDir(t testing.TB) string {
	t.Helper()
	return nstest.TempDir(t)
}

// Guard kills every VMM of the host when the test is over, even if the whole test
// binary is killed: a VMM outlives zwrmd, and so whoever started it. All of them run in
// folders below that of the host, which goes as well.
func (h *Host) Guard(t testing.TB) {
	t.Helper()
	const script = `cat
for process in /proc/[0-9]*; do
	case $(readlink "$process/cwd") in "$0"/*) kill -9 "${process#/proc/}" ;; esac
done
rm -rf "$0"`
	cmd := exec.Command("/bin/sh", "-c", script, h.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is not for it
	life, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("start the guard of VMMs: %v", err)
	}
	t.Cleanup(func() {
		_ = life.Close()
		_ = cmd.Wait() // it says nothing of use: a process that ended meanwhile is its error
	})
}

// Run runs a program on the host, which must succeed, and returns its stdout.
func (h *Host) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	return Run(t, h.Namespace, name, args...)
}

// Foreign gives the host rules of somebody else, in every table and hook in which
// ZWRM has some: in the manner of Docker and ufw.
func (h *Host) Foreign(t testing.TB) {
	t.Helper()
	for _, tool := range []string{"iptables", "ip6tables"} {
		for _, line := range []string{
			"-t filter -N DOCKER-USER",
			"-t filter -A FORWARD -j DOCKER-USER",
			"-t filter -A DOCKER-USER -i docker0 -j ACCEPT",
			"-t filter -N ufw-before-input",
			"-t filter -A INPUT -j ufw-before-input",
			"-t filter -A ufw-before-input -i lo -j ACCEPT",
			"-t filter -A OUTPUT -o lo -j ACCEPT",
			"-t nat -A POSTROUTING -o docker0 -j MASQUERADE",
			"-t raw -A PREROUTING -i docker0 -j ACCEPT",
		} {
			h.Run(t, tool, strings.Fields(line)...)
		}
	}
}

// Reboot takes away what a reboot does: TAPs, bridge, all rules, forwarding.
func (h *Host) Reboot(t testing.TB) {
	t.Helper()
	for _, match := range regexp.MustCompile(`(?m)^\d+: (zvm\d+|zwrmd0):`).FindAllStringSubmatch(h.Run(t, "ip", "-o", "link"), -1) {
		h.Run(t, "ip", "link", "delete", match[1])
	}
	for _, tool := range []string{"iptables", "ip6tables"} {
		for _, table := range []string{"raw", "filter", "nat"} {
			h.Run(t, tool, "-t", table, "-F")
			h.Run(t, tool, "-t", table, "-X")
		}
	}
	h.Set(t, "net/ipv4/ip_forward", "0")
}

// Dump returns everything in the host's network that ZWRM may change: links,
// addresses, routes, rules and settings, one per line.
func (h *Host) Dump(t testing.TB) string {
	t.Helper()
	// The number of a link, how long a bridge waits for what, and its random address.
	volatile := regexp.MustCompile(`^\d+: | +\S+_timer +\S+`)
	random := regexp.MustCompile(`(zwrmd0: .*link/ether) \S+`)
	var out strings.Builder
	for _, command := range []string{
		"ip -d -o link", "ip -o address", "ip rule", "ip route show table all", "ip -6 route show table all",
	} {
		words := strings.Fields(command)
		var lines []string
		for line := range strings.Lines(h.Run(t, words[0], words[1:]...)) {
			lines = append(lines, random.ReplaceAllString(volatile.ReplaceAllString(line, ""), "$1"))
		}
		slices.Sort(lines) // it is that of making
		out.WriteString("# " + command + "\n" + strings.Join(lines, ""))
	}
	out.WriteString(h.Rules(t))
	out.WriteString(h.sysctls(t))
	return out.String()
}

// Rules returns all rules, as iptables-save and ip6tables-save print them, without
// times and counters. A table without rules is left out: looking for a feature of
// the kernel makes the table, and an empty one does nothing.
func (h *Host) Rules(t testing.TB) string {
	t.Helper()
	counters := regexp.MustCompile(`\[\d+:\d+\]`)
	empty := regexp.MustCompile(`(?m)^\*.*\n(:[A-Z]+ ACCEPT \[0:0\]\n)*COMMIT\n`)
	var out strings.Builder
	for _, tool := range []string{"iptables-save", "ip6tables-save"} {
		out.WriteString("# " + tool + "\n")
		var table strings.Builder
		for line := range strings.Lines(h.Run(t, tool)) {
			if !strings.HasPrefix(line, "#") {
				table.WriteString(counters.ReplaceAllString(line, "[0:0]"))
			}
		}
		out.WriteString(empty.ReplaceAllString(table.String(), ""))
	}
	return out.String()
}

// Same reports an error when the host's network is not as it was in an earlier Dump.
func (h *Host) Same(t testing.TB, before string) {
	t.Helper()
	if after := h.Dump(t); after != before {
		t.Errorf("the host's network changed:\n%s", Changes(before, after))
	}
}

// Changes returns the lines that are in one text only.
func Changes(before, after string) string {
	lines := map[string]int{}
	for line := range strings.Lines(before) {
		lines[line]--
	}
	for line := range strings.Lines(after) {
		lines[line]++
	}
	var out strings.Builder
	for _, line := range slices.Sorted(maps.Keys(lines)) {
		switch n := lines[line]; {
		case n < 0:
			out.WriteString("- " + line)
		case n > 0:
			out.WriteString("+ " + line)
		}
	}
	if out.Len() == 0 {
		return "the order of lines"
	}
	return out.String()
}

// sysctls returns the settings of IPv4 and IPv6.
func (h *Host) sysctls(t testing.TB) string {
	t.Helper()
	var out strings.Builder
	h.Do(t, func() {
		settings := os.DirFS("/proc/sys/net")
		for _, family := range []string{"ipv4", "ipv6"} {
			err := fs.WalkDir(settings, family, func(path string, entry fs.DirEntry, err error) error {
				if err != nil || entry.IsDir() {
					return err
				}
				value, err := fs.ReadFile(settings, path)
				if err == nil { // some can only be written, some have no value yet
					out.WriteString(path + " " + string(value))
				}
				return nil
			})
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("read settings of %s: %v", family, err)
			}
		}
	})
	return out.String()
}

// Sysctl returns a setting of the host by its path below /proc/sys.
func (h *Host) Sysctl(t testing.TB, name string) string {
	t.Helper()
	var value []byte
	var err error
	h.Do(t, func() { value, err = os.ReadFile("/proc/sys/" + name) })
	if err != nil {
		t.Fatalf("read sysctl %q: %v", name, err)
	}
	return strings.TrimSpace(string(value))
}

package model_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"zwrm/internal/effect"
	"zwrm/internal/firewall"
	"zwrm/internal/firewall/iptables"
	"zwrm/internal/firewall/nftables"
	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/reconcile"
)

// TestOnKernel has the real kernel and both dataplanes, of which each zwrmd takes one:
// it finds what one with the other left. VMMs and the clock are those of TestInMemory.
// They do not run at the same time: a program that is just being started holds the
// database's lock for a moment.
func TestOnKernel(t *testing.T) {
	done := newTally(*onKernel)
	own, err := host.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	for _, command := range []string{
		"ip link add eth0 type veth peer name peer0", "ip address add 192.0.2.1/24 dev eth0", "ip link set eth0 up",
		"ip link add docker0 type bridge", "ip address add 172.17.0.1/16 dev docker0",
		"iptables -N DOCKER-USER", "iptables -A FORWARD -j DOCKER-USER",
		"iptables -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE", "nft add table inet other",
		"nft add chain inet other c { type filter hook forward priority 0 ; }",
	} {
		if _, err := run(command); err != nil {
			t.Fatal(err)
		}
	}
	repeat(t, done, func(t *rapid.T, seam *seam) site { return newReal(t, own, seam) })
	t.Log(done)
}

// run runs a program and returns its output.
func run(command string) (string, error) {
	words := strings.Fields(command)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", command, err, out)
	}
	return string(out), nil
}

// keeper is a dataplane.
type keeper interface {
	reconcile.Firewall
	Dump(ctx context.Context) (string, error)
}

// real is the kernel of this namespace.
type real struct {
	own    *host.Kernel // the test's, past the seam
	seam   *seam
	t      *rapid.T
	keeper keeper // of the zwrmd that runs, or ran last
	looks  int    // at what is not ours
	seen   string // at the last one
}

func newReal(t *rapid.T, own *host.Kernel, seam *seam) site {
	r := &real{own: own, seam: seam, t: t}
	must(t, r.reboot())
	return r
}

// reboot takes away all that is ours.
func (r *real) reboot() error {
	ctx := context.Background()
	links, err := r.own.Links(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, l := range links {
		if ours(l) || l.Name == "zwrmd0" {
			names = append(names, l.Name)
		}
	}
	errs := []error{r.own.DeleteLinks(ctx, names...), r.own.SetSysctl("net/ipv4/ip_forward", "0")}
	for _, name := range []string{"iptables", "nftables"} {
		rules, end, err := openRules(ctx, name, nil)
		if err != nil {
			return err
		}
		errs = append(errs, rules.Remove(ctx), end())
	}
	return errors.Join(errs...)
}

func openRules(ctx context.Context, name string, hook effect.Hook) (keeper, func() error, error) {
	if name == "nftables" {
		rules, err := nftables.Open(ctx, hook)
		if err != nil {
			return nil, nil, err
		}
		return rules, rules.Close, nil
	}
	rules, err := iptables.Open(ctx, hook)
	return rules, func() error { return nil }, err
}

// open takes a dataplane by chance, and takes away what the other one left.
func (r *real) open() (_ reconcile.Kernel, _ func() error, err error) {
	ctx := context.Background()
	kernel, err := host.Open(r.seam)
	if err != nil {
		return reconcile.Kernel{}, nil, err
	}
	names := []string{"iptables", "nftables"}
	first := rapid.IntRange(0, 1).Draw(r.t, "dataplane")
	rules, end, err := openRules(ctx, names[first], r.seam)
	if err != nil {
		return reconcile.Kernel{}, nil, errors.Join(err, kernel.Close())
	}
	r.keeper = rules
	change := &change{Firewall: rules, other: names[1-first], hook: r.seam}
	return reconcile.Kernel{Links: kernel, Settings: kernel, Firewall: change},
		func() error { return errors.Join(end(), kernel.Close()) }, nil
}

// change is a dataplane that takes the place of another, as the daemon's does.
type change struct {
	reconcile.Firewall
	other string
	hook  effect.Hook
	done  bool
}

func (c *change) Apply(ctx context.Context, want firewall.Ruleset) error {
	if err := c.Firewall.Apply(ctx, want); err != nil || c.done {
		return err
	}
	other, end, err := openRules(ctx, c.other, c.hook)
	if err != nil {
		return err
	}
	err = errors.Join(other.Remove(ctx), end())
	c.done = err == nil
	return err
}

func (r *real) kernel() kernel { return r.own }

func (r *real) plug(tap string) (io.Closer, error) { return openTAP(tap) }

// tapFD is a descriptor of a TAP.
type tapFD int

func (fd tapFD) Close() error { return unix.Close(int(fd)) }

// openTAP opens a TAP as a VMM does, and never reads from it.
func openTAP(name string) (io.Closer, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return tapFD(fd), nil
}

var (
	ofApp    = regexp.MustCompile(`zwrm: app `)
	appGroup = regexp.MustCompile(`(0x5a[0-9a-f]{6}|15[0-9]{8})`)
)

// texts returns the rules, a line each, in order of the text: those of apps may stand
// in any.
func (r *real) texts() ([]string, error) {
	text, err := r.keeper.Dump(context.Background())
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return slices.DeleteFunc(lines, func(line string) bool { return line == "" }), err
}

func (r *real) rules() (string, []model.Group, error) {
	lines, err := r.texts()
	var groups []model.Group
	for _, line := range lines {
		if !ofApp.MatchString(line) {
			continue
		}
		group, err := strconv.ParseUint(appGroup.FindString(line), 0, 32)
		if err != nil {
			return "", nil, err
		}
		groups = append(groups, model.Group(group))
	}
	return strings.Join(lines, "\n"), groups, err
}

// traffic is an answer to the host's ARP.
func (r *real) traffic(vm model.VM, guest netip.Addr) error {
	_, err := run(fmt.Sprintf("ip neighbour replace %s lladdr %s dev %s", guest, ipam.MACOf(guest), vm.Slot.TAP()))
	return err
}

func (r *real) traces() ([]string, error) {
	text, err := run("ip -4 neighbour")
	return slices.Collect(strings.Lines(text)), err
}

// foreign returns what others have: every twentieth time, since it takes as long as all
// else.
func (r *real) foreign() (string, error) {
	if r.looks++; r.looks%20 != 1 {
		return r.seen, nil
	}
	var lines []string
	for _, command := range []string{"iptables-save", "ip6tables-save", "nft list table inet other", "ip -o address show dev eth0", "ip -o address show dev docker0"} {
		text, err := run(command)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(text) {
			// Tables and their own chains come with the first rule of anybody.
			own := strings.Contains(line, "ZWRM") || strings.HasPrefix(line, "*") || strings.HasPrefix(line, "#") || strings.Contains(line, "ACCEPT [") || line == "COMMIT\n"
			if !own {
				lines = append(lines, line)
			}
		}
	}
	r.seen = strings.Join(lines, "")
	return r.seen, nil
}

// drifts returns what others may do to us. Of nftables they can do nothing: the table
// has an owner.
func (r *real) drifts() map[string]drift {
	drifts := map[string]drift{}
	for what, command := range map[string]string{
		"TAP deleted":          "ip link delete TAP",
		"TAP down":             "ip link set TAP down",
		"TAP of MTU 1400":      "ip link set TAP mtu 1400",
		"TAP of other MAC":     "ip link set TAP address 02:00:00:00:00:01",
		"TAP unassigned":       "ip link set TAP group 0x5a000000",
		"TAP in other app":     "ip link set TAP group 0x5a00ffff",
		"address removed":      "ip address flush dev TAP",
		"address added":        "ip address add 198.18.0.1/32 dev TAP",
		"rp_filter off":        "sysctl -w net.ipv4.conf.TAP.rp_filter=0",
		"forwarding off":       "sysctl -w net.ipv4.ip_forward=0",
		"bridge deleted":       "ip link delete zwrmd0",
		"bridge down":          "ip link set zwrmd0 down",
		"TAP of no VM":         "ip tuntap add zvm77 mode tap",
		"apps' rules flushed":  "iptables -F ZWRM-PRIVATE",
		"rules flushed":        "iptables -F ZWRM-FORWARD",
		"rules of NAT flushed": "iptables -t nat -F ZWRM-NAT",
		"rule removed":         "iptables -t raw -D ZWRM-RAW 1",
		"jump removed":         "iptables -D FORWARD -j ZWRM-FORWARD",
		"rule added":           "iptables -I ZWRM-PRIVATE -j ACCEPT",
	} {
		drifts[what] = r.drift(command)
	}
	return drifts
}

func (r *real) drift(command string) drift {
	return func(_ *rapid.T, tap string) bool {
		if tap == "" && strings.Contains(command, "TAP") {
			return false
		}
		before, _ := r.everything()
		if _, err := run(strings.ReplaceAll(command, "TAP", tap)); err != nil {
			return false // there is no such thing now
		}
		if strings.Contains(command, "zvm77") {
			_ = r.own.SetGroup(context.Background(), model.GroupUnassigned+1, "zvm77")
		}
		after, err := r.everything()
		return err == nil && before != after
	}
}

// everything returns all that a drift may change.
func (r *real) everything() (string, error) {
	rules, _, err := r.rules()
	if err != nil {
		return "", err
	}
	links, err := r.own.Links(context.Background())
	if err != nil {
		return "", err
	}
	forward, err := r.own.Sysctl("net/ipv4/ip_forward")
	return fmt.Sprint(rules, links, forward), err
}

func (r *real) strays() []string { return nil }

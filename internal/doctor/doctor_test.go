package doctor_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"zwrm/internal/config"
	"zwrm/internal/doctor"
	"zwrm/internal/host"
	"zwrm/internal/plan"
	"zwrm/internal/preflight"
)

// wellHost is a host on which nothing stands in the way.
func wellHost(t *testing.T, text string) doctor.Facts {
	t.Helper()
	cfg, err := config.Parse(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := doctor.Facts{
		Config:  cfg,
		Started: plan.Uplink{Name: "eth0", MTU: 1500},
		Host: &preflight.Facts{
			Root: true,
			Links: []host.Link{
				{Name: "lo", Up: true, MTU: 65536},
				{Name: "eth0", Up: true, MTU: 1500, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}},
				{Name: "wan0", Up: true, MTU: 1500},
				{Name: "spare0", MTU: 1500},
			},
			Routes: []host.Route{{Dest: netip.MustParsePrefix("0.0.0.0/0"), Device: "eth0", Table: 254}},
		},
		Sysctls:    map[string]string{},
		Neighbours: host.Neighbours{Entries: 30, Max: 65536},
		VMs:        20,
		Dataplane:  "iptables v1.8.9 (nf_tables)",
	}
	for name, value := range map[string]string{
		"net/ipv4/ip_forward":              "1",
		"net/ipv4/conf/eth0/forwarding":    "1",
		"net/ipv4/conf/all/rp_filter":      "0",
		"net/ipv4/conf/eth0/rp_filter":     "1",
		"net/netfilter/nf_conntrack_max":   "262144",
		"net/netfilter/nf_conntrack_count": "100",
		"net/ipv4/conf/eth0.7/forwarding":  "1",
	} {
		f.Sysctls[name] = value
	}
	return f
}

// lines returns findings as text.
func lines(findings []doctor.Finding) string {
	var out strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&out, "%s: %s %s; %s\n", f.Severity, f.Subject, f.What, f.Mend)
	}
	return out.String()
}

// examination is a host, what is wrong with it, and what is said of that.
type examination struct {
	name   string
	config string
	change func(*doctor.Facts)
	want   []string // a part of each finding, in order
}

func TestExamine(t *testing.T) {
	tests := slices.Concat(ofTheWay(), ofTheInterface(), ofTables(), ofTheRest())
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			facts := wellHost(t, test.config)
			test.change(&facts)
			got := doctor.Examine(facts)
			if len(got) != len(test.want) {
				t.Fatalf("findings:\n%swant %d: %q", lines(got), len(test.want), test.want)
			}
			for i, finding := range got {
				if !strings.Contains(lines([]doctor.Finding{finding}), test.want[i]) {
					t.Errorf("finding %d:\n%swant %q", i, lines([]doctor.Finding{finding}), test.want[i])
				}
			}
		})
	}
}

// named is a configuration that has the external interface.
const named = "[network]\nexternal_interface = \"eth0\"\n"

// ofTheWay is about what packets need on their way.
func ofTheWay() []examination {
	return []examination{
		{name: "nothing", change: func(*doctor.Facts) {}},
		{name: "nothing known", change: func(f *doctor.Facts) { *f = doctor.Facts{Config: f.Config} }},
		{name: "forwarding off", change: func(f *doctor.Facts) {
			f.Sysctls["net/ipv4/ip_forward"], f.Sysctls["net/ipv4/conf/eth0/forwarding"] = "0", "0"
		}, want: []string{"problem: net.ipv4.ip_forward = 0 stops all that VMs send"}},
		{name: "forwarding of the interface off", change: func(f *doctor.Facts) { f.Sysctls["net/ipv4/conf/eth0/forwarding"] = "0" },
			want: []string{"problem: net.ipv4.conf.eth0.forwarding = 0 stops all that the internet answers VMs; sysctl -w net.ipv4.conf.eth0.forwarding=1"}},
		{name: "forwarding of an interface with a dot off", change: func(f *doctor.Facts) {
			f.Started.Name, f.Host.Links[1].Name, f.Host.Routes[0].Device = "eth0.7", "eth0.7", "eth0.7"
			f.Sysctls["net/ipv4/conf/eth0.7/forwarding"] = "0"
		}, want: []string{"sysctl -w net/ipv4/conf/eth0.7/forwarding=1"}},
		{name: "an overlap that came later", change: func(f *doctor.Facts) {
			f.Host.Routes = append(f.Host.Routes, host.Route{Dest: netip.MustParsePrefix("172.16.8.0/24"), Device: "tun0"})
		}, want: []string{`problem: network.subnet = "172.16.0.0/16" overlaps the route to 172.16.8.0/24 by "tun0"; choose a range`}},
		{name: "TUN gone", change: func(f *doctor.Facts) { f.Host.TUN = errors.New("no such device") },
			want: []string{"problem: /dev/net/tun cannot be opened: no such device; load it with"}},
		{name: "default route gone", change: func(f *doctor.Facts) { f.Host.Routes = nil },
			want: []string{"problem: network.external_interface is not set, and the host has no default route"}},
		{name: "default route moved", change: func(f *doctor.Facts) { f.Host.Routes[0].Device = "wan0" },
			want: []string{`problem: default route is by "wan0" now, and the rules let VMs leave by "eth0"`}},
		{name: "interface gone", config: named, change: func(f *doctor.Facts) { f.Host.Links = f.Host.Links[:1] },
			want: []string{`problem: network.external_interface = "eth0" no interface of this name exists`}},
		{name: "interface down", change: func(f *doctor.Facts) { f.Host.Links[1].Up = false },
			want: []string{`problem: interface "eth0" is down, and VMs reach the internet by it; ip link set eth0 up`}},
	}
}

// ofTheInterface is about an external interface that is another than zwrmd started with.
func ofTheInterface() []examination {
	return []examination{
		{name: "smaller MTU", change: func(f *doctor.Facts) { f.Host.Links[1].MTU = 1400 },
			want: []string{`warning: interface "eth0" has MTU 1400 now, and VMs have 1500`}},
		{name: "larger MTU", change: func(f *doctor.Facts) { f.Host.Links[1].MTU = 9000 }},
		{name: "MTU of the configuration too large", config: "[network]\nmtu = 1500\n", change: func(f *doctor.Facts) { f.Host.Links[1].MTU = 1400 },
			want: []string{`problem: network.mtu = 1500 is larger than that of interface "eth0", 1400`}},
		{name: "MTU of the configuration small enough", config: "[network]\nmtu = 1300\n", change: func(f *doctor.Facts) { f.Host.Links[1].MTU = 1400 }},
		{name: "default route elsewhere", config: named, change: func(f *doctor.Facts) {
			f.Host.Routes[0].Device, f.Sysctls["net/ipv4/conf/eth0/rp_filter"] = "wan0", "0"
		}, want: []string{`warning: default route is by "wan0", and VMs may leave by "eth0" only`}},
		{name: "default route elsewhere, strict check", config: named, change: func(f *doctor.Facts) { f.Host.Routes[0].Device = "wan0" },
			want: []string{"warning: default route is by", `warning: net.ipv4.conf.eth0.rp_filter = 1 throws away what "eth0" receives`}},
		{name: "default route elsewhere, strict check of all", config: named, change: func(f *doctor.Facts) {
			f.Host.Routes[0].Device = "wan0"
			f.Sysctls["net/ipv4/conf/eth0/rp_filter"], f.Sysctls["net/ipv4/conf/all/rp_filter"] = "0", "1"
		}, want: []string{"warning: default route is by", "warning: net.ipv4.conf.all.rp_filter = 1 throws away"}},
		{name: "no default route, but an interface", config: named, change: func(f *doctor.Facts) { f.Host.Routes = nil }},
		{name: "loose check of all", change: func(f *doctor.Facts) { f.Sysctls["net/ipv4/conf/all/rp_filter"] = "2" },
			want: []string{"warning: net.ipv4.conf.all.rp_filter = 2 overrules the strict check"}},
	}
}

// ofTables is about tables of the kernel that fill up.
func ofTables() []examination {
	return []examination{
		{name: "neighbour table as the kernel has it", change: func(f *doctor.Facts) { f.Neighbours.Max = 1024 },
			want: []string{"warning: net.ipv4.neigh.default.gc_thresh3 = 1024 is the bound of the neighbour table, and the subnet holds 16384 VMs"}},
		{name: "neighbour table just large enough", change: func(f *doctor.Facts) { f.Neighbours.Max = 16384 }},
		{name: "neighbour table for fewer VMs than there are", change: func(f *doctor.Facts) { f.Neighbours.Max, f.VMs = 1024, 1024 },
			want: []string{"problem: net.ipv4.neigh.default.gc_thresh3 = 1024 is the bound of the neighbour table, in which each of 1024 VMs needs an entry"}},
		{name: "neighbour table nearly full", change: func(f *doctor.Facts) { f.Neighbours = host.Neighbours{Entries: 18000, Max: 20000} },
			want: []string{"problem: net.ipv4.neigh.default.gc_thresh3 = 20000 is the bound of the neighbour table, which has 18000 entries"}},
		{name: "neighbour table not yet full", change: func(f *doctor.Facts) { f.Neighbours = host.Neighbours{Entries: 17999, Max: 20000} }},
		{name: "many connections", change: func(f *doctor.Facts) {
			f.Sysctls["net/netfilter/nf_conntrack_max"], f.Sysctls["net/netfilter/nf_conntrack_count"] = "1000", "800"
		}, want: []string{"warning: net.netfilter.nf_conntrack_max = 1000 is the bound of tracked connections, and there are 800"}},
		{name: "not so many connections", change: func(f *doctor.Facts) {
			f.Sysctls["net/netfilter/nf_conntrack_max"], f.Sysctls["net/netfilter/nf_conntrack_count"] = "1000", "799"
		}},
		{name: "too many connections", change: func(f *doctor.Facts) {
			f.Sysctls["net/netfilter/nf_conntrack_max"], f.Sysctls["net/netfilter/nf_conntrack_count"] = "1000", "950"
		}, want: []string{"problem: net.netfilter.nf_conntrack_max = 1000 is the bound of tracked connections, and there are 950"}},
		{name: "any number of connections", change: func(f *doctor.Facts) { f.Sysctls["net/netfilter/nf_conntrack_max"] = "0" }},
	}
}

// ofTheRest is about the dataplane, VMMs, and what others found.
func ofTheRest() []examination {
	return []examination{
		{name: "iptables-legacy", change: func(f *doctor.Facts) { f.Dataplane = "iptables v1.8.9 (legacy)" },
			want: []string{"warning: iptables v1.8.9 (legacy) tells nobody of changes"}},
		{name: "losses", config: "[network]\nfirewall = \"nftables\"\n", change: func(f *doctor.Facts) { f.Losses = []string{"no owner", "no persist"} },
			want: []string{`warning: firewall = "nftables" is not all that it could be on this kernel: no owner`, "no persist"}},
		{name: "no VMM", change: func(f *doctor.Facts) { f.VMM = errors.New("qemu is gone") },
			want: []string{"problem: VMM cannot be started, so neither can VMs: qemu is gone"}},
		{name: "no KVM", change: func(f *doctor.Facts) { f.NoKVM = errors.New("no such device") },
			want: []string{"warning: KVM does not work here, so guests run in software"}},
		{name: "drift", change: func(f *doctor.Facts) { f.Drift = 3 }, want: []string{"warning: network is not as planned, differences: 3; zwrm network check"}},
		{name: "conflicts", change: func(f *doctor.Facts) {
			f.Conflicts = []doctor.Finding{{"ufw", doctor.Warning, "is odd", "mend it"}, {"firewalld", doctor.Problem, "drops", "mend it"}}
		}, want: []string{"problem: firewalld drops; mend it", "warning: ufw is odd; mend it"}},
		{name: "what is unknown", change: func(f *doctor.Facts) { f.Host, f.Unknown = nil, []error{errors.New("list links: not permitted")} },
			want: []string{"warning: doctor could not look everywhere: list links: not permitted"}},
		{name: "problems come first", change: func(f *doctor.Facts) {
			f.Neighbours.Max, f.VMM, f.Sysctls["net/ipv4/ip_forward"] = 1024, errors.New("gone"), "0"
		}, want: []string{"problem: net.ipv4.ip_forward", "problem: VMM", "warning: net.ipv4.neigh"}},
	}
}

// TestSettings: what is examined is what is asked for.
func TestSettings(t *testing.T) {
	facts := wellHost(t, "")
	asked := doctor.Settings("eth0")
	for name, bad := range map[string]string{
		"net/ipv4/ip_forward": "0", "net/ipv4/conf/eth0/forwarding": "0", "net/ipv4/conf/all/rp_filter": "2", "net/netfilter/nf_conntrack_count": "999999",
	} {
		if !slices.Contains(asked, name) {
			t.Errorf("%s is not asked for", name)
		}
		was := facts.Sysctls[name]
		facts.Sysctls[name] = bad
		if len(doctor.Examine(facts)) == 0 {
			t.Errorf("%s = %s is no finding", name, bad)
		}
		facts.Sysctls[name] = was
	}
}

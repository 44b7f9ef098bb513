package doctor

import (
	"cmp"
	"fmt"
	"slices"

	"zwrm/internal/config"
	"zwrm/internal/host"
	"zwrm/internal/plan"
	"zwrm/internal/preflight"
)

// Severity is how bad a finding is.
type Severity string

// The severities.
const (
	Problem Severity = "problem" // something does not work
	Warning Severity = "warning" // something may not work some day, or not as well as it could
)

// Finding is one thing that stands in the way.
type Finding struct {
	Subject  string // as in "net.ipv4.ip_forward = 0"
	Severity Severity
	What     string // what is wrong with it; it reads on from the subject
	Mend     string // what to do; may be empty
}

// Facts is what is known of the host and of zwrmd.
type Facts struct {
	Config  config.Config
	Started plan.Uplink      // the interface to the internet, as rules and TAPs have it since the start
	Host    *preflight.Facts // as it is now; nil: not known
	// Sysctls are settings by their path below /proc/sys. Those that cannot be read, or
	// that the kernel does not have, are not among them.
	Sysctls    map[string]string
	Neighbours host.Neighbours // zero: not known
	VMs        int             // attachments, too
	Dataplane  string          // what serves the rules, as in "iptables v1.8.9 (nf_tables)"
	Losses     []string        // what the kernel cannot keep safe
	VMM        error           // why no VM could be started; nil: nothing is known against it
	NoKVM      error           // why guests run without KVM; nil: they run with it
	Drift      int             // differences between kernel and plan
	Conflicts  []Finding       // with other firewalls of the host
	Unknown    []error         // why facts are missing here
}

// Examine returns what stands in the way, problems first.
func Examine(f Facts) []Finding {
	var all []Finding
	for _, look := range []func(Facts) []Finding{
		forwarding, uplink, started, sources, neighbours, connections, firewalls, vmm, drift, unknown,
	} {
		all = append(all, look(f)...)
	}
	slices.SortStableFunc(all, func(a, b Finding) int { return cmp.Compare(a.Severity, b.Severity) }) // "problem" < "warning"
	return all
}

// firewalls judges what serves the rules, and what serves those of others.
func firewalls(f Facts) []Finding {
	var all []Finding
	if isLegacy(f.Dataplane) {
		all = append(all, Finding{f.Dataplane, Warning, "tells nobody of changes: rules that another program takes away are mended within 30 s, not at once",
			"use iptables-nft: update-alternatives --set iptables /usr/sbin/iptables-nft, the same for ip6tables, and restart zwrmd"})
	}
	for _, loss := range f.Losses {
		all = append(all, Finding{"firewall = " + quote(string(f.Config.Network.Firewall)), Warning, "is not all that it could be on this kernel: " + loss,
			"use a newer kernel"})
	}
	return append(all, f.Conflicts...)
}

func vmm(f Facts) []Finding {
	var all []Finding
	if f.VMM != nil {
		all = append(all, Finding{"VMM", Problem, "cannot be started, so neither can VMs: " + f.VMM.Error(), "install it again"})
	}
	if f.NoKVM != nil {
		all = append(all, Finding{"KVM", Warning,
			"does not work here, so guests run in software, about ten times slower, and a hostile guest is contained less well: " + f.NoKVM.Error(),
			"switch virtualization on in the firmware, or nested virtualization on the machine around this one; then restart zwrmd"})
	}
	return all
}

// drift tells of differences and no more: that is what zwrm network check is for.
func drift(f Facts) []Finding {
	if f.Drift == 0 {
		return nil
	}
	return []Finding{{"network", Warning, fmt.Sprintf("is not as planned, differences: %d", f.Drift),
		"zwrm network check shows them, zwrm network repair mends them"}}
}

func unknown(f Facts) []Finding {
	var all []Finding
	for _, err := range f.Unknown {
		all = append(all, Finding{"doctor", Warning, "could not look everywhere: " + err.Error(), "run zwrmd as root, with the programs that it started with"})
	}
	return all
}

func quote(s string) string { return fmt.Sprintf("%q", s) }

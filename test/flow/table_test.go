package flow_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"zwrm/internal/firewall"
)

// flow is one line of the table and one of its protocols.
type flow struct {
	from, to string
	protocol string // "icmp", or as in "tcp/80"
	state    state
	private  string // "on", "off" or "either"
	phase    phase
	pass     bool
	by       firewall.Reason // "-": no rule of ours decides
	seenAs   string          // "own", an address, or "-" for what no target can tell
}

// state is that of the connection to which the packet belongs.
type state string

const (
	fresh       state = "new"
	established state = "established"
	related     state = "related"
)

// phase is what zwrmd does meanwhile.
type phase string

const (
	running    phase = "running"
	killed     phase = "killed"
	restarted  phase = "restarted"
	unassigned phase = "unassigned"
	stopped    phase = "stopped"
)

func (f flow) String() string {
	name := fmt.Sprintf("%s to %s %s", f.from, f.to, strings.ReplaceAll(f.protocol, "/", ":"))
	if f.state != fresh && f.state != "" {
		name += " " + string(f.state)
	}
	return name
}

// inWorld reports whether the flow is one of a host with private networking on or
// off.
func (f flow) inWorld(private bool) bool {
	return f.private == "either" || f.private == onOff(private)
}

// ofVMs reports whether a VM takes part. Of other flows ZWRM keeps out.
func (f flow) ofVMs() bool { return isVM(f.from) || isVM(f.to) }

func isVM(name string) bool {
	return strings.HasPrefix(name, "web-") || strings.HasPrefix(name, "db-")
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// flows reads the table.
func flows(t *testing.T) []flow {
	t.Helper()
	text, err := os.ReadFile("testdata/flows.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []flow
	for i, line := range strings.Split(string(text), "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		if len(words) != 9 || (words[6] != "pass" && words[6] != "drop") {
			t.Fatalf("testdata/flows.txt:%d: not a flow: %q", i+1, line)
		}
		by := firewall.Reason(strings.TrimPrefix(words[7], "-"))
		for protocol := range strings.SplitSeq(words[2], ",") {
			all = append(all, flow{words[0], words[1], protocol, state(words[3]), words[4], phase(words[5]), words[6] == "pass", by, words[8]})
		}
	}
	return all
}

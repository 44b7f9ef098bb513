package figures

import (
	"fmt"
	"strings"
)

// Row is a line of the figures.
type Row struct {
	What   string
	Target Target
}

// Target is what was set for nftables. At most one field is set.
type Target struct {
	AtMost, AtLeast float64 // the ratio
	Milliseconds    float64 // at most, with the most apps
}

// String returns the target in words, "-" for none.
func (t Target) String() string {
	switch {
	case t.AtMost != 0:
		return fmt.Sprintf("× %.2f or less", t.AtMost)
	case t.AtLeast != 0:
		return fmt.Sprintf("× %.2f or more", t.AtLeast)
	case t.Milliseconds != 0:
		return fmt.Sprintf("%.0f ms or less", t.Milliseconds)
	}
	return "-"
}

// Holds reports whether a ratio, or as many milliseconds, is as good as the target.
func (t Target) Holds(figure float64) bool {
	switch {
	case t.AtMost != 0:
		return figure <= t.AtMost
	case t.AtLeast != 0:
		return figure >= t.AtLeast
	}
	return figure <= t.Milliseconds
}

// Path is how far packets go while they are timed.
type Path string

// The paths.
const (
	ThroughHost  Path = "through the host"    // from one TAP's descriptor to another's
	GuestToGuest Path = "from guest to guest" // from socket to socket, by the guests' kernels
)

// Metric is what is timed of packets.
type Metric string

// The metrics.
const (
	RoundTrip   Metric = "UDP round trip, established flow"
	FirstPacket Metric = "first packet of a UDP flow"
	Connections Metric = "new TCP connections per second"
)

// Paths returns every path, in the order of rows.
func Paths() []Path { return []Path{ThroughHost, GuestToGuest} }

// Metrics returns every metric, in the order of rows.
func Metrics() []Metric { return []Metric{RoundTrip, FirstPacket, Connections} }

func (m Metric) target() Target {
	switch m {
	case RoundTrip:
		return Target{AtMost: 1.05}
	case FirstPacket:
		return Target{AtMost: 1.10}
	}
	return Target{AtLeast: 0.90}
}

// Traffic returns the rows about packets.
func Traffic() []Row {
	var rows []Row
	for _, path := range Paths() {
		for _, metric := range Metrics() {
			rows = append(rows, Row{TrafficRow(path, metric), metric.target()})
		}
	}
	return rows
}

// TrafficRow returns the name of a row about packets.
func TrafficRow(path Path, metric Metric) string { return string(metric + ", " + Metric(path)) }

// Change is what is done to rules.
type Change string

// The changes.
const (
	Add     Change = "add an app's rule"
	Remove  Change = "remove an app's rule"
	Rebuild Change = "rebuild all rules"
)

// Changes returns the rows about changes of rules.
func Changes() []Row {
	return []Row{
		{ChangeRow("nftables", Add), Target{AtMost: 1.5}},
		{ChangeRow("nftables", Remove), Target{AtMost: 1.5}},
		{ChangeRow("nftables", Rebuild), Target{Milliseconds: 200}},
		{ChangeRow("iptables", Add), Target{}},
		{ChangeRow("iptables", Remove), Target{}},
		{ChangeRow("iptables", Rebuild), Target{}},
	}
}

// ChangeRow returns the name of a row about a change of a dataplane's rules.
func ChangeRow(dataplane string, change Change) string { return dataplane + ": " + string(change) }

// Check returns an error if a text does not have every row, with a figure in each of
// its cells but the target's.
func Check(text string) error {
	for _, row := range append(Traffic(), Changes()...) {
		_, rest, ok := strings.Cut(text, "\n| "+row.What+" | ")
		if !ok {
			return fmt.Errorf("there is no row %q", row.What)
		}
		line, _, _ := strings.Cut(rest, "\n")
		cells := strings.Split(strings.TrimSuffix(line, " |"), " | ")
		for _, cell := range cells[1:] {
			if !strings.ContainsAny(cell, "0123456789") {
				return fmt.Errorf("row %q has a cell without a figure: %q", row.What, cell)
			}
		}
		if len(cells) < 3 {
			return fmt.Errorf("row %q has %d cells", row.What, len(cells))
		}
	}
	return nil
}

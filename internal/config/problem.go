package config

import "strings"

// Problem is one thing that is wrong with the configuration, in itself or on
// this host. Its String is the line that zwrmd --check-config prints.
type Problem struct {
	Key   string // path of the key, as in "network.bridge.name"; of a syntax error, file and line
	Value string // as it would stand in the file, strings in quotes; empty: not worth showing
	Env   string // environment variable that the value comes from; empty: the file or the default
	What  string // what is wrong with the value, as in "not a network address"
	Mend  string // what to do, as in `use "172.16.0.0/16"`
}

// String returns the problem on one line, as in
//
//	network.subnet = "172.16.0.1/16": not a network address; use "172.16.0.0/16"
func (p Problem) String() string {
	var line strings.Builder
	line.WriteString(p.Key)
	if p.Value != "" {
		line.WriteString(" = " + p.Value)
	}
	if p.Env != "" {
		line.WriteString(" (" + p.Env + ")")
	}
	line.WriteString(": " + p.What)
	if p.Mend != "" {
		line.WriteString("; " + p.Mend)
	}
	return line.String()
}

// Errors is every problem that was found, at least one: first unknown
// keys and wrong types in the order of the file, then those of the environment,
// then wrong values.
type Errors struct{ Problems []Problem }

// Error returns one line per problem.
func (e *Errors) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

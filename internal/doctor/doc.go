// Package doctor says what on a host stands in the way of the VMs' network, and what
// to do about it. It judges facts that others have gathered and changes nothing.
//
// What zwrmd refuses to start on is judged by package preflight, which is asked
// again here: most of it can come about while zwrmd runs.
package doctor

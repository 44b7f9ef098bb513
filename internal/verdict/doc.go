// Package verdict says what becomes of a new connection between two ends that a
// user names, and why: the evaluator of the firewall on the live state of the host.
// It sends nothing. What it is not told it asks the kernel for: which way a packet
// goes.
package verdict

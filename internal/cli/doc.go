// Package cli is the zwrm command: one file for each kind of thing that it
// handles. It asks zwrmd over its socket and shows the answer; it decides nothing.
//
// The answer goes to stdout and everything else to stderr, so that a script reads
// the one and a person the other.
package cli

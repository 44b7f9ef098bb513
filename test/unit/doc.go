// Package unit tests what systemd is told of zwrmd: that it is understood, how much it
// leaves open, and that zwrmd and its VMMs do their work within it.
package unit

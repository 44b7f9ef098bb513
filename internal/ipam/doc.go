// Package ipam turns one number, the slot of a VM, into its whole network, and
// hands slots out. It does no I/O: the store remembers which slots are taken.
package ipam

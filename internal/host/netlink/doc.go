// Package netlink is the little of netlink(7) that ZWRM needs, without policy
// and without names of its own for what the kernel has names for already.
//
// It differs from a general library in what the host's package depends on:
// several requests go to the kernel in one datagram, which it carries out
// within one system call, so that a process that is killed leaves all of them
// done or none; replies are read in place, so that a dump of 16,384 links costs
// no allocation per link; and a dump that changed while it was read is an error.
package netlink

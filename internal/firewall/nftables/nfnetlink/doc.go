// Package nfnetlink speaks with nf_tables of the kernel, by netlink: Conn makes the
// changes of a Batch in one transaction and reads what is there. It knows tables of
// the family inet only, and nothing of what they are for.
//
// The form of the messages is in linux/netfilter/nf_tables.h and nfnetlink.h of the
// kernel's headers.
package nfnetlink

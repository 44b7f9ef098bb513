// Package disk is a disk for a VM that can lose its power. It is served to QEMU as
// an NBD export and kept in memory, and like a real disk it has a volatile write
// cache: what is written is on the disk for sure once a flush behind it has
// returned. Until then a power cut loses it, keeps it, or keeps some of its sectors,
// and it does so write by write, in no order.
//
// Every write and flush is in a log, so that one run of a VM tells what a power cut
// at any of its moments would have left.
package disk

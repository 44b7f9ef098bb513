// Package powercut cuts the power of a host on which zwrmd works. The host is a VM
// with the real zwrmd, on ext4, on a disk that forgets what was not flushed
// (package disk); the requests come from outside, so that what was acknowledged is
// known for sure.
package powercut

// Package effect has the seam that every side effect of zwrmd passes: what it
// commits to the database, changes in the kernel, and does to processes and files.
// In production nobody listens there, and a side effect costs a comparison with nil.
// Tests listen: they end the process right before and right after each side effect,
// or have it fail, and look at what is left then.
//
// # What is a side effect
//
// Whatever is still there when the process is killed right behind it: a transaction,
// a datagram of netlink requests, an ioctl, a sysctl, a run of iptables-restore, a
// transaction of nf_tables, a call of firewalld that changes something, a program that
// is started, a signal, and each step by which files and folders come and go. Reading
// is none. Neither is a descriptor that is closed, since a killed process closes it too.
//
// # How to add one
//
// Name it by a constant in the package that does it, "package.what-is-done":
//
//	const opRename effect.Op = "image.rename"
//
// and wrap the one call that changes something, not the method around it:
//
//	err := effect.Do(s.hook, opRename, func() error { return os.Rename(from, to) })
//
// Two changes are two side effects, each with a name of its own, so that there is a
// point between them. The Hook comes from the constructor. Then run the tests of
// test/crash: a side effect of a story that they have is found by itself. Tell there
// what a failure of it means only if it does not make the request fail.
package effect

// Package store keeps what ZWRM intends, apps and VMs with their slots, in one
// SQLite database. It does not know the kernel: whoever changes the network
// writes here first and deletes here last.
//
// One zwrmd has a database at a time. It holds flock(2) on a lock file beside
// the database, never on the database itself: closing any other descriptor of
// that file would drop SQLite's own locks (https://sqlite.org/howtocorrupt.html
// section 2.2). For the same reason nothing in this process may open the
// database's file while a Store has it open.
//
// # What a crash leaves
//
// Every write is one transaction in WAL mode with synchronous=FULL, so a write
// that returned nil survives kill -9 and a power cut, and one that was under way
// is there whole or not at all. A write that failed because the disk did (no
// space, I/O error) did not happen as far as this process can see, yet it may be
// found done after a power cut, when its bytes had reached the disk before the
// error. Readers of the database must therefore treat rows as intent, and
// compare them with the kernel.
//
// The lock goes with the process; the lock file stays, and means nothing
// without the lock. A crash while a database is created leaves an empty file,
// which the next Open fills. A crash while one is migrated leaves the old
// version, and perhaps a file ending in ".bak.tmp", which the next Open replaces.
package store

// Package hosttest is for tests of what works on a host: Fake is a kernel in
// memory, which needs no root and can be made to fail at any operation, and Suite
// is what Fake and host.Kernel have in common, so that a test on one says
// something about the other.
package hosttest

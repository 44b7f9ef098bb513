// Package host is the kernel's network of the namespace that the process runs
// in: links, addresses, routes, sysctls, connection tracking. It holds no
// policy. Package hosttest has an in-memory kernel with the same behaviour, and
// the conformance suite that both pass; package nstest runs tests on the real one
// in namespaces of their own.
package host

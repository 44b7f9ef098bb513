// Package plan turns configuration and rows into the wanted state of the host:
// links, addresses, rules and sysctls, as data. It does no I/O. The plan of one
// VM is a part of the plan of the host, so that the path that adds one VM and
// the path that mends everything cannot disagree.
package plan

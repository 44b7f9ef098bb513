// Package measure takes the figures of the benchmark, in network namespaces of its own:
// the bare calls of the kernel, zwrmd, and the programs of others, in turn.
package measure

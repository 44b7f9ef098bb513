// Package figures says what the benchmark of the dataplanes finds out, and how
// docs/dataplanes.md shows it.
package figures

// Package preflight compares the configuration with the host before anything is
// changed, so that zwrmd refuses with a clear message what would break later.
package preflight

// Package turn has callers who wait for each other share the work of one.
package turn

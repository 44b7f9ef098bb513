// Package event passes on what happens, as it happens, to whoever listens. It
// remembers nothing: the store has the state, the log has the past.
package event

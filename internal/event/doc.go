// Package event passes on what happens, as it happens, to whoever listens, and
// remembers the last of it. The store has the state, the log has the whole past.
package event

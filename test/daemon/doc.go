// Package daemon tests the real zwrmd: what it refuses and that it changes nothing
// then, what it makes of a host, leaves when it stops or is killed, and mends.
package daemon

// Package wire holds the JSON shapes of the API, as the daemon writes them and
// the command line reads them. Scripts rely on every name in here.
package wire

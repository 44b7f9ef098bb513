// Package load puts many clients on the API of the real zwrmd with many VMs, and
// looks for errors, for leaks and for how long answers take.
package load
